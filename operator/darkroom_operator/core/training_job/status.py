"""Summarise: from what goes on to the conditions and the words that people and tools read."""

from dataclasses import dataclass
from datetime import datetime

from darkroom_api import names
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import Attempt, Resolved, TrainingJobStatus
from darkroom_operator.core.conditions import Stand, conditions, timestamp
from darkroom_operator.core.training_job.forecast import forecast
from darkroom_operator.core.training_job.objects import image_of, processes_per_node
from darkroom_operator.core.training_job.observe import Job, Observed, Pod

PODS_DUE_SECONDS = 10.0
"""The Job controller makes pods within a second; after this long something refuses them."""
_PULL_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)


@dataclass(frozen=True)
class Phase:
    """Where a job stands, in one place; the conditions follow from it."""

    state: str
    reason: str
    message: str
    ready: bool = False
    stalled: bool = False
    suspended: bool = False
    complete: bool = False
    failed: bool = False

    @property
    def finished(self) -> bool:
        """At either end."""
        return self.complete or self.failed


def completed(reason: str, message: str) -> Phase:
    """Trained."""
    return Phase("Complete", reason, message, ready=True, complete=True)


def failed(reason: str, message: str) -> Phase:
    """No attempt will follow."""
    return Phase("Failed", reason, message, stalled=True, failed=True)


def stalled(reason: str, message: str) -> Phase:
    """Waits for somebody to change something; goes on by itself then."""
    return Phase("Stalled", reason, message, stalled=True)


def suspended() -> Phase:
    """No pods, as asked."""
    return Phase("Suspended", names.REASON_SUSPENDED, "suspended as asked", ready=True, suspended=True)


def restarting(message: str) -> Phase:
    """Between two attempts."""
    return Phase("Restarting", names.REASON_RESTARTING, message)


def stopping(message: str, reason: str = names.REASON_STOPPING) -> Phase:
    """An attempt is over, well or not, as soon as its last pod has gone."""
    return Phase("Stopping", reason, message)


def queued(message: str) -> Phase:
    """Made, and held back until there is room for all of its pods."""
    return Phase("Queued", names.REASON_QUEUED, message)


def pending(message: str, reason: str = names.REASON_PENDING) -> Phase:
    """On the way to running."""
    return Phase("Pending", reason, message)


def of_attempt(seen: Observed, spec: TrainingJobSpec, attempt: Attempt) -> Phase:
    """Where a running attempt stands: the first check that answers wins."""
    job, pods = seen.jobs.get(attempt.number), seen.current_pods(attempt.number)
    # why it stops is told once: that the next pod ends is no news
    why = _said_before(seen, names.REASON_STOPPING)
    if job is None or job.deleting:
        reason = names.REASON_SUSPENDED if seen.told[0] == names.REASON_SUSPENDED else names.REASON_STOPPING
        return stopping(
            why or f"attempt {attempt.number} is being stopped; the next follows when its pods have gone", reason
        )
    if words := _ending(job, pods, spec):
        return stopping(why or f"attempt {attempt.number}: {words}")
    up = sum(pod.up and not pod.departed and not pod.leaving for pod in pods)
    if up >= spec.least_nodes:
        some = f"{up} of {spec.nodes} nodes run, {spec.least_nodes} are enough"
        nodes = "every node runs" if up >= spec.nodes else some + _admitted(spec, job)
        return Phase("Running", names.REASON_RUNNING, f"attempt {attempt.number}: {nodes}", ready=True)
    for check in (_cannot_start, _cannot_be_scheduled):
        if phase := check(seen, pods):
            return phase
    return _pods_missing(seen, spec, job, pods) or pending(f"attempt {attempt.number}: {up} of {spec.nodes} nodes run")


def _admitted(spec: TrainingJobSpec, job: Job) -> str:
    """That its queue had no room for more, of an elastic job."""
    asked = job.asks_for(spec.nodes)
    return f"; queue {job.queue!r} had room for {asked}" if asked < spec.nodes else ""


def _ending(job: Job, pods: list[Pod], spec: TrainingJobSpec) -> str | None:
    """Why the attempt will not go on: one pod that failed or leaves ends them all, unless the job is elastic."""
    if spec.elastic and not job.failing:
        return None
    if failed := next((pod for pod in pods if pod.phase == "Failed"), None):
        code = failed.terminated.exit_code if failed.terminated else "unknown"
        how = failed.disrupted or f"exit code {code}"
        others = "; the others are being stopped" if len(pods) > 1 else ""
        return f"node {failed.index} in pod {failed.name} has failed ({how}){others}"
    for pod in pods:
        if pod.leaving and pod.disrupted:
            return (
                f"pod {pod.name} is being taken away ({pod.disrupted}); on a lost node it is gone when "
                f"{pod.node or 'the node'} returns, is deleted or is tainted out-of-service"
            )
        if pod.leaving:
            return f"pod {pod.name} is being deleted"
    return "a pod has failed" if job.failing else None


def _cannot_start(seen: Observed, pods: list[Pod]) -> Phase | None:
    for pod in pods:
        if pod.waiting and pod.live:
            kind, text = pod.waiting
            reason = names.REASON_IMAGE_PULL if kind in _PULL_REASONS else names.REASON_CONTAINER_CONFIG
            message = f"pod {pod.name}: {kind}: {text}"
            # kubelet alternates between two messages while it backs off; one of them is enough for the status
            return pending(_said_before(seen, reason) or message, reason)
    return None


def _said_before(seen: Observed, reason: str) -> str | None:
    told, message = seen.told
    return message if told == reason else None


def _cannot_be_scheduled(_: Observed, pods: list[Pod]) -> Phase | None:
    for pod in pods:
        if pod.unschedulable and pod.live:
            return pending(f"pod {pod.name}: {pod.unschedulable}", names.REASON_UNSCHEDULABLE)
    return None


def _pods_missing(seen: Observed, spec: TrainingJobSpec, job: Job, pods: list[Pod]) -> Phase | None:
    due = job.due_from
    asked = job.asks_for(spec.nodes)
    if len(pods) >= asked or due is None or (seen.now - due).total_seconds() < PODS_DUE_SECONDS:
        return None
    made = f"{len(pods)} of {asked} pods were made" if pods else "no pod was made"
    message = f"{made} for Job {job.name}: a quota, pod security or a policy refuses it; see its events"
    return pending(message, names.REASON_PODS_NOT_CREATED)


def render(seen: Observed, status: TrainingJobStatus, phase: Phase) -> TrainingJobStatus:
    """The whole status as it should be stored."""
    status.observed_generation = seen.generation
    status.state, status.finished = phase.state, phase.finished
    status.conditions = conditions(
        seen.status.conditions or [], stands(phase), generation=seen.generation, now=seen.now
    )
    status.restarts, status.disruptions = status.restarts or 0, status.disruptions or 0
    if phase.finished and not status.completion_time:
        status.completion_time = _completion_time(status, seen.now)
    if seen.spec:
        status.forecast = forecast(seen.spec, status, seen.profile, seen.precedent)
        status.nodes = f"{_nodes_up(seen, status, phase)}/{seen.spec.nodes}"
        if seen.profile and not phase.finished and not _recorded_before(seen, status):
            status.resolved = _resolved(seen, seen.spec)
    return status


def stands(phase: Phase) -> dict[str, Stand]:
    """Every condition, as the phase has it; of a sweep's phases too."""
    reconciling = not (phase.ready or phase.stalled)
    truths = {
        names.COMPLETE: phase.complete,
        names.FAILED: phase.failed,
        names.SUSPENDED: phase.suspended,
        names.READY: phase.ready,
        names.RECONCILING: reconciling,
        names.STALLED: phase.stalled,
    }
    speaking = {names.READY}  # says why even while it is False
    return {
        kind: Stand(truth, phase.reason, phase.message if truth or kind in speaking else "")
        for kind, truth in truths.items()
    }


def _completion_time(status: TrainingJobStatus, now: datetime) -> str:
    last = status.attempts[-1] if status.attempts else None
    return (last.end_time if last else None) or timestamp(now)


def _nodes_up(seen: Observed, status: TrainingJobStatus, phase: Phase) -> int:
    """Pods that run; one that was lost with its node still looks as if it did."""
    if not status.attempts or status.attempts[-1].end_time or phase.suspended or phase.finished:
        return 0
    return sum(
        pod.up and not pod.departed and not (pod.leaving and pod.disrupted)
        for pod in seen.current_pods(status.attempts[-1].number)
    )


def _recorded_before(seen: Observed, status: TrainingJobStatus) -> bool:
    """An attempt keeps what its profile was when it was made."""
    attempt = status.attempts[-1] if status.attempts else None
    return attempt is not None and attempt.end_time is None and attempt.number == seen.status.attempt


def _resolved(seen: Observed, spec: TrainingJobSpec) -> Resolved | None:
    if seen.profile is None:
        return None
    return Resolved(
        image=image_of(spec, seen.profile),
        profile=spec.profile,
        num_proc_per_node=processes_per_node(spec, seen.profile),
    )
