"""Decide: everything that a user would call behaviour is here. Pure; the shell carries the Plan out.

The order of life: the record is brought up to date first, and nothing is started on the strength of what is not stored
yet. So a crash between any two writes leaves a state from which the same decisions follow.
"""

from datetime import timedelta

from darkroom_api import names
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import TrainingJobStatus
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.training_job import objects, status
from darkroom_operator.core.training_job.events import events_between
from darkroom_operator.core.training_job.failures import FAILED, SUCCEEDED
from darkroom_operator.core.training_job.observe import Observed, observe
from darkroom_operator.core.training_job.record import Record, backoff_seconds, bring_up_to_date
from darkroom_operator.core.training_job.surroundings import Surroundings, owner_of, surroundings
from darkroom_operator.core.types import Body, Delete, Facts, Plan

KEPT_JOBS = 3
"""Attempts whose Jobs (and pods, and logs) stay; older ones are on record in the status."""


def plan(facts: Facts) -> Plan:
    """What to do about one TrainingJob now."""
    seen = observe(facts)
    if seen.deleting:
        return Plan()  # the garbage collector takes the children
    if seen.status.finished:
        return _after_the_end(seen)
    if seen.spec is None:
        return _say(seen, status.stalled(names.REASON_INVALID_SPEC, "; ".join(seen.problems)))
    record = bring_up_to_date(seen, seen.spec)
    for decide in (_ended_for_good, _past_deadline, _suspended, _refused, _impossible, _under_way):
        if decision := decide(seen, seen.spec, record):
            return decision
    return _start_attempt(seen, seen.spec, record)


def _ended_for_good(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    """The newest attempt has just ended, and no other will follow."""
    ended = record.ended
    if ended is None:
        return None
    if ended.result == SUCCEEDED:
        return _say(seen, status.completed(ended.reason, ended.message), record)
    if ended.result != FAILED:
        return None
    if not ended.retry:
        return _say(seen, status.failed(ended.reason, ended.message), record)
    spent = record.status.restarts or 0
    if spent >= spec.restart.max_restarts:
        message = f"restarts exhausted ({spent} of {spec.restart.max_restarts}); last: {ended.reason}: {ended.message}"
        return _say(seen, status.failed(names.REASON_RESTARTS_EXHAUSTED, message), record)
    record.status.restarts = spent + 1
    return None


def _past_deadline(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    left = _seconds_left(seen, spec, record)
    if left is None or left > 0:
        return None
    message = f"activeDeadlineSeconds ({spec.active_deadline_seconds}) passed"
    return _say(seen, status.failed(names.REASON_DEADLINE_EXCEEDED, message), record, delete=_unfinished_jobs(seen))


def _seconds_left(seen: Observed, spec: TrainingJobSpec, record: Record) -> float | None:
    """Seconds of running until the deadline; time between attempts and time suspended do not count."""
    if spec.active_deadline_seconds is None:
        return None
    used = float(record.status.active_seconds or 0)
    if record.running and (start := parse_time(record.running.start_time)):
        used += (seen.now - start).total_seconds()
    return spec.active_deadline_seconds - used


def _suspended(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    if not spec.suspend:
        return None
    if record.running is None and not seen.live_pods:
        return _say(seen, status.suspended(), record)
    # foreground deletion: the Job stays until its pods have saved and left
    stopping = status.pending("suspending: waiting for the pods to save and leave", names.REASON_SUSPENDED)
    return _say(seen, stopping, record, delete=_unfinished_jobs(seen))


def _refused(seen: Observed, _spec: TrainingJobSpec, record: Record) -> Plan | None:
    """The API server said no to the last try; the shell tries again later, with growing pauses."""
    if seen.refusal is None:
        return None
    no = seen.refusal
    reason = names.REASON_NAME_TAKEN if no.code == 409 else names.REASON_REJECTED
    message = f"{no.kind} {no.name} was refused: {no.message}"
    return _say(seen, status.stalled(reason, message), record)


def _impossible(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    """What only the platform team or the user can change. A running attempt goes on whatever its profile became."""
    if record.running:
        return None
    if seen.profile is None:
        known = ", ".join(seen.profile_names) or "none"
        message = f"spec.profile: there is no profile {spec.profile!r}; known profiles: {known}"
        return _say(seen, status.stalled(names.REASON_PROFILE_NOT_FOUND, message), record)
    if seen.profile.max_nodes is not None and spec.num_nodes > seen.profile.max_nodes:
        message = (
            f"spec.numNodes: {spec.num_nodes} is more than profile {spec.profile!r} allows ({seen.profile.max_nodes})"
        )
        return _say(seen, status.stalled(names.REASON_LIMIT_EXCEEDED, message), record)
    if objects.image_of(spec, seen.profile) is None:
        message = f"profile {spec.profile!r} names no trainer image"
        return _say(seen, status.stalled(names.REASON_PROFILE_NOT_FOUND, message), record)
    return None


def _under_way(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    if record.running is None:
        return None
    phase = status.of_attempt(seen, spec, record.running)
    job = seen.jobs.get(record.running.number)
    healthy = job is not None and not job.deleting and not job.failing
    around = surroundings(seen, spec) if healthy else Surroundings()
    wait = _seconds_left(seen, spec, record)
    if healthy and job and not seen.pods_of(record.running.number):
        due = status.PODS_DUE_SECONDS - (seen.now - job.created_at).total_seconds()
        if due > 0:
            wait = min(wait, due) if wait is not None else due
    return _say(seen, phase, record, create=around.create, apply=around.apply, delete=around.delete, wait=wait)


def _start_attempt(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan:
    """The next attempt: only once the end of the last one is stored, its pods are gone and the back-off is over."""
    if record.newest is None:
        return _create_attempt(seen, spec, number=1)
    number = record.newest.number + 1
    if record.ended or seen.live_pods:
        left = f"; waiting for {len(seen.live_pods)} pods to end" if seen.live_pods else ""
        phase = status.restarting(f"attempt {record.newest.number} ended: {record.newest.reason}{left}")
        return _say(seen, phase, record, wait=None if seen.live_pods else 0.0)
    ended = parse_time(record.newest.end_time) or seen.now
    due = ended + timedelta(seconds=backoff_seconds(spec, record.status))
    if seen.now < due:
        phase = status.restarting(f"attempt {number} starts at {due:%H:%M:%S} UTC, after a back-off")
        return _say(seen, phase, record, wait=(due - seen.now).total_seconds())
    return _create_attempt(seen, spec, number=number)


def _create_attempt(seen: Observed, spec: TrainingJobSpec, *, number: int) -> Plan:
    if seen.profile is None:
        raise ValueError("an attempt needs a profile; _impossible comes first")
    around = surroundings(seen, spec)
    job = objects.job(owner_of(seen), spec, seen.profile, attempt=number)
    old = tuple(
        Delete("Job", seen.jobs[past].name, seen.jobs[past].uid)
        for past in sorted(seen.jobs)
        if past <= number - KEPT_JOBS and not seen.jobs[past].deleting
    )
    # No status yet: the attempt is recorded when its Job, and so its UID, is seen. That second look is due at once.
    return Plan(create=(*around.create, job), apply=around.apply, delete=(*around.delete, *old), requeue_after=0.0)


def _after_the_end(seen: Observed) -> Plan:
    """Terminal is final: stop what still runs, and delete the TrainingJob when its time has come."""
    stop = _unfinished_jobs(seen)
    ttl = seen.spec.ttl_seconds_after_finished if seen.spec else None
    finished = parse_time(seen.status.completion_time)
    if ttl is None or finished is None:
        return _keep_generation(seen, Plan(delete=stop))
    left = ttl - (seen.now - finished).total_seconds()
    if left > 0:
        return _keep_generation(seen, Plan(delete=stop, requeue_after=left))
    return Plan(delete=(*stop, Delete("TrainingJob", seen.name, seen.uid)))


def _keep_generation(seen: Observed, decision: Plan) -> Plan:
    """An edit after the end (a new TTL, say) must not leave the conditions looking stale."""
    if seen.status.observed_generation == seen.generation:
        return decision
    new = seen.status.model_copy(deep=True)
    new.observed_generation = seen.generation
    for condition in new.conditions or []:
        condition.observed_generation = seen.generation
    return Plan(delete=decision.delete, status=new.to_wire(), requeue_after=decision.requeue_after)


def _unfinished_jobs(seen: Observed) -> tuple[Delete, ...]:
    return tuple(
        Delete("Job", job.name, job.uid) for job in seen.jobs.values() if job.ended is None and not job.deleting
    )


def _say(
    seen: Observed,
    phase: status.Phase,
    record: Record | None = None,
    *,
    create: tuple[Body, ...] = (),
    apply: tuple[Body, ...] = (),
    delete: tuple[Delete, ...] = (),
    wait: float | None = None,
) -> Plan:
    """A plan whose status tells `phase`."""
    new: TrainingJobStatus = record.status if record else seen.status.model_copy(deep=True)
    new = status.render(seen, new, phase)
    return Plan(
        create=create,
        apply=apply,
        delete=delete,
        status=new.to_wire(),
        events=events_between(seen.status, new),
        requeue_after=wait,
    )
