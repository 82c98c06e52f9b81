"""Decide: everything that a user would call behaviour is here. Pure; the shell carries the Plan out.

The order of life: the record is brought up to date first, and nothing is started on the strength of what is not stored
yet. So a crash between any two writes leaves a state from which the same decisions follow.
"""

from datetime import timedelta

from darkroom_api import names
from darkroom_api.v1alpha1.scheduling import Gang
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import Attempt, TrainingJobStatus
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job import budget, live, objects, queueing, status
from darkroom_operator.core.training_job.events import events_between
from darkroom_operator.core.training_job.failures import FAILED, FINISHING, SUCCEEDED
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
    for decide in (
        _ended_for_good,
        _being_ended,
        _wanted_no_more,
        _preempted,
        _past_deadline,
        _suspended,
        _budget_spent,
        _late_to_start,
        _stuck,
        _refused,
        _impossible,
        _outdated,
        _under_way,
    ):
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
        reason = names.REASON_RESTART_RULE if ended.by_rule else ended.reason
        return _say(seen, status.failed(reason, ended.message), record)
    if ended.free:
        return None
    spent = record.status.restarts or 0
    if spent >= spec.restart.max_restarts:
        message = f"restarts exhausted ({spent} of {spec.restart.max_restarts}); last: {ended.reason}: {ended.message}"
        return _say(seen, status.failed(names.REASON_RESTARTS_EXHAUSTED, message), record)
    record.status.restarts = spent + 1
    return None


def _end_attempt(seen: Observed, record: Record, attempt: Attempt, reason: str, message: str) -> Plan:
    """Store the verdict; the Job goes with the next look, so that its absence never lacks an author."""
    attempt.reason, attempt.message = reason, message[:1024]
    return _say(seen, _ending(attempt), record, wait=0.0)


def _being_ended(seen: Observed, _spec: TrainingJobSpec, record: Record) -> Plan | None:
    """A verdict is stored: its pods are asked to leave, then the Job goes; with them gone, the attempt is closed with it."""
    attempt = record.running
    if attempt is None or attempt.reason is None:
        return None
    if wait := live.seconds_to_yield(seen, attempt):
        return _say(seen, _ending(attempt), record, wait=wait)
    return _say(seen, _ending(attempt), record, delete=_unfinished_jobs(seen))


def _ending(attempt: Attempt) -> status.Phase:
    last = "finish with what they have" if attempt.reason in FINISHING else "save and leave"
    words = f"attempt {attempt.number} is being ended: waiting for its pods to {last}; {attempt.message}"
    return status.stopping(words, attempt.reason or names.REASON_STOPPING)


def _wanted_no_more(seen: Observed, _spec: TrainingJobSpec, record: Record) -> Plan | None:
    """The sweep that this is a trial of has seen enough of it, or is over."""
    if seen.leave is None:
        return None
    if record.running:
        return _end_attempt(seen, record, record.running, *seen.leave)
    return _say(seen, status.completed(*seen.leave), record)


def _preempted(seen: Observed, _spec: TrainingJobSpec, record: Record) -> Plan | None:
    """A running attempt's Job was suspended: its place goes to the end of the queue, and its record stays clean."""
    why = queueing.preempted(seen, record.running) if record.running else None
    if why is None or record.running is None or seen.jobs[record.running.number].failing:
        return None  # or it ends by itself
    return _end_attempt(seen, record, record.running, names.REASON_PREEMPTED, why)


def _past_deadline(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    left = _seconds_left(seen, spec, record)
    if left is None or left > 0:
        return None
    message = f"activeDeadlineSeconds ({spec.active_deadline_seconds}) passed"
    if record.running:
        job = seen.jobs.get(record.running.number)
        if job and job.failing:
            return None  # it ends by itself, and its own cause is worth more
        return _end_attempt(seen, record, record.running, names.REASON_DEADLINE_EXCEEDED, message)
    return _say(seen, status.failed(names.REASON_DEADLINE_EXCEEDED, message), record)


def _seconds_left(seen: Observed, spec: TrainingJobSpec, record: Record) -> float | None:
    """Seconds of running until the deadline; time between attempts, suspended or in a queue does not count."""
    if spec.active_deadline_seconds is None:
        return None
    return spec.active_deadline_seconds - budget.active_seconds(record.status, record.running, seen.now)


def _suspended(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    if not spec.suspend:
        return None
    if record.running is None and not seen.live_pods:
        return _say(seen, status.suspended(), record)
    stopping = status.stopping("suspending: waiting for the pods to save and leave", names.REASON_SUSPENDED)
    if record.running and (wait := live.seconds_to_yield(seen, record.running)):
        return _say(seen, stopping, record, wait=wait)
    # foreground deletion: the Job stays until its pods have saved and left
    return _say(seen, stopping, record, delete=_unfinished_jobs(seen))


def _budget_spent(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    """Enough time or money, or a model that is good enough: the trainer is to finish with what it has."""
    verdict = budget.verdict(seen, spec, record.status, record.running)
    if verdict is None:
        return None
    if record.running:
        return _end_attempt(seen, record, record.running, *verdict)
    return _say(seen, status.failed(*verdict), record)


def _late_to_start(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    """Not every pod runs in time."""
    attempt = record.running
    left = _seconds_to_start(seen, spec, attempt) if attempt else None
    if attempt is None or left is None or left > 0:
        return None
    obstacle = status.of_attempt(seen, spec, attempt)
    message = f"startupDeadlineSeconds ({spec.startup_deadline_seconds}) passed: {obstacle.reason}: {obstacle.message}"
    return _end_attempt(seen, record, attempt, names.REASON_STARTUP_DEADLINE_EXCEEDED, message)


def _seconds_to_start(seen: Observed, spec: TrainingJobSpec, attempt: Attempt) -> float | None:
    """Seconds until the startup deadline; None where there is none, or where it cannot be missed any more."""
    job = seen.jobs.get(attempt.number)
    if spec.startup_deadline_seconds is None or attempt.running_time or job is None:
        return None
    if job.deleting or job.failing or job.due_from is None:
        return None
    return spec.startup_deadline_seconds - (seen.now - job.due_from).total_seconds()


def _stuck(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    """A container reports no new step: it holds its nodes for nothing."""
    attempt = record.running
    left = live.seconds_to_stall(seen, spec, record.status, attempt) if attempt else None
    job = seen.jobs.get(attempt.number) if attempt else None
    if attempt is None or left is None or left > 0 or job is None or job.deleting or job.failing:
        return None
    step = record.status.progress.step if record.status.progress else 0
    message = f"no new step was reported for {spec.stall_seconds} s (stallSeconds); the last was {step}"
    return _end_attempt(seen, record, attempt, names.REASON_NO_PROGRESS, message)


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
    if obstacle := _against_profile(spec, seen.profile):
        return _say(seen, status.stalled(*obstacle), record)
    chosen = queueing.choose(spec, seen.profile, seen.served)
    if isinstance(chosen, queueing.Obstacle):
        return _say(seen, status.stalled(chosen.reason, chosen.message), record)
    return None


def _against_profile(spec: TrainingJobSpec, profile: Profile) -> tuple[str, str] | None:
    """Reason and message, where the job and its profile do not go together."""
    if profile.max_nodes is not None and spec.nodes > profile.max_nodes:
        field = "elastic.maxNodes" if spec.elastic else "numNodes"
        message = f"spec.{field}: {spec.nodes} is more than profile {spec.profile!r} allows ({profile.max_nodes})"
        return names.REASON_LIMIT_EXCEEDED, message
    if (priority := objects.priority_class_of(spec, profile)) and priority not in profile.allowed_priorities:
        allowed = ", ".join(profile.allowed_priorities) or "none"
        message = f"spec.scheduling.priorityClassName: profile {spec.profile!r} does not allow {priority!r}; allowed: {allowed}"
        return names.REASON_PRIORITY_NOT_ALLOWED, message
    if objects.image_of(spec, profile) is None:
        return names.REASON_PROFILE_NOT_FOUND, f"profile {spec.profile!r} names no trainer image"
    return None


def _outdated(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    """The profile, or the queue, was put right before any pod ran: nothing is lost by a new attempt."""
    attempt = record.running
    job = seen.jobs.get(attempt.number) if attempt else None
    if attempt is None or job is None or job.deleting or seen.profile is None:
        return None
    if any(pod.started_at for pod in seen.pods_of(attempt.number)):
        return None
    if job.digest in (None, _digest(seen, spec, seen.profile, attempt.number)):
        return None
    message = "the profile or spec.scheduling was changed before any pod ran; the next attempt follows it"
    return _end_attempt(seen, record, attempt, names.REASON_PROFILE_CHANGED, message)


def _under_way(seen: Observed, spec: TrainingJobSpec, record: Record) -> Plan | None:
    if record.running is None:
        return None
    record.running.yield_time = None  # resumed, or given more time, before it had left
    job = seen.jobs.get(record.running.number)
    healthy = job is not None and not job.deleting and not job.failing
    queued = healthy and job is not None and job.suspended
    phase = (
        queueing.waiting(seen, record.running, job) if queued and job else status.of_attempt(seen, spec, record.running)
    )
    around = surroundings(seen, spec) if healthy else Surroundings()
    group = queueing.pod_group(seen, spec, record.running, job) if healthy and job else ()
    waits = [
        _seconds_left(seen, spec, record),
        budget.seconds_left(seen, spec, record.status, record.running),
        _seconds_to_start(seen, spec, record.running),
        live.seconds_to_stall(seen, spec, record.status, record.running),
    ]
    if queued and job:
        waits.append(queueing.next_look(seen, job))
    elif healthy and job and job.due_from and len(seen.current_pods(record.running.number)) < job.asks_for(spec.nodes):
        waits.append(status.PODS_DUE_SECONDS - (seen.now - job.due_from).total_seconds())
    wait = min((seconds for seconds in waits if seconds is not None and seconds > 0), default=None)
    return _say(
        seen, phase, record, create=(*around.create, *group), apply=around.apply, delete=around.delete, wait=wait
    )


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
    avoid = seen.status.avoided_nodes or ()
    chosen = queueing.choose(spec, seen.profile, seen.served)
    gang = chosen if isinstance(chosen, Gang) else Gang.NONE
    wanted = objects.job(
        owner_of(seen), spec, seen.profile, attempt=number, gang=gang, avoid=avoid, channel=seen.channel
    )
    job = objects.signed(wanted, _digest(seen, spec, seen.profile, number))
    old = tuple(
        Delete("Job", seen.jobs[past].name, seen.jobs[past].uid)
        for past in sorted(seen.jobs)
        if past <= number - KEPT_JOBS and not seen.jobs[past].deleting
    )
    # No status yet: the attempt is recorded when its Job, and so its UID, is seen. That second look is due at once.
    return Plan(create=(*around.create, job), apply=around.apply, delete=(*around.delete, *old), requeue_after=0.0)


def _digest(seen: Observed, spec: TrainingJobSpec, profile: Profile, number: int) -> str:
    """Of what the profile and the spec ask for, without what comes and goes: avoided nodes, the report channel, the gang."""
    return objects.digest(objects.job(owner_of(seen), spec, profile, attempt=number), spec.scheduling)


def _after_the_end(seen: Observed) -> Plan:
    """Terminal is final: stop what still runs, and delete the TrainingJob when its time has come."""
    stop = _unfinished_jobs(seen)
    ttl = seen.spec.ttl_seconds_after_finished if seen.spec else None
    finished = parse_time(seen.status.completion_time)
    if ttl is None or finished is None:
        return _kept_up(seen, Plan(delete=stop))
    left = ttl - (seen.now - finished).total_seconds()
    if left > 0:
        return _kept_up(seen, Plan(delete=stop, requeue_after=left))
    return Plan(delete=(*stop, Delete("TrainingJob", seen.name, seen.uid)))


def _kept_up(seen: Observed, decision: Plan) -> Plan:
    """An edit after the end (a new TTL, say) must not leave the conditions looking stale; and the trace is sent after it."""
    new = seen.status.model_copy(deep=True)
    new.observed_generation = seen.generation
    new.trace_id = new.trace_id or seen.trace_id
    if new == seen.status:
        return decision
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
