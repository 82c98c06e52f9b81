"""What to tell in Events: the difference between the stored status and the new one."""

from darkroom_api import names
from darkroom_api.v1alpha1.training_job_status import TrainingJobStatus
from darkroom_operator.core.types import Event

_WARNINGS = frozenset(
    {
        names.REASON_UNSCHEDULABLE,
        names.REASON_IMAGE_PULL,
        names.REASON_CONTAINER_CONFIG,
        names.REASON_PODS_NOT_CREATED,
        names.REASON_NO_PROGRESS,
        names.REASON_NO_QUEUE,
        names.REASON_NO_GANG_SCHEDULER,
        names.REASON_PROFILE_NOT_FOUND,
        names.REASON_INVALID_SPEC,
        names.REASON_LIMIT_EXCEEDED,
        names.REASON_PRIORITY_NOT_ALLOWED,
        names.REASON_REJECTED,
        names.REASON_NAME_TAKEN,
    }
)


def events_between(old: TrainingJobStatus, new: TrainingJobStatus) -> tuple[Event, ...]:
    """Events of one step, in the order in which things happened."""
    return (
        *_attempts_ended(old, new),
        *_attempts_begun(old, new),
        *_turn(old, new),
        *_resized(old, new),
        *_straggling(old, new),
    )


def _attempts_begun(old: TrainingJobStatus, new: TrainingJobStatus) -> list[Event]:
    known = {attempt.uid for attempt in old.attempts or []}
    avoiding = f", rather not on {', '.join(old.avoided_nodes)}: failed there before" if old.avoided_nodes else ""
    return [
        Event(
            "Normal",
            "AttemptStarted",
            f"created Job {attempt.job} for attempt {attempt.number}{avoiding}",
            "StartAttempt",
        )
        for attempt in new.attempts or []
        if attempt.uid not in known
    ]


def _attempts_ended(old: TrainingJobStatus, new: TrainingJobStatus) -> list[Event]:
    ended = {attempt.uid for attempt in old.attempts or [] if attempt.end_time}
    found = []
    for attempt in new.attempts or []:
        if attempt.end_time and attempt.uid not in ended:
            bad = attempt.result in ("Failed", "Disrupted")
            result = attempt.result if attempt.reason == attempt.result else f"{attempt.result}, {attempt.reason}"
            note = f"attempt {attempt.number} ended: {result}: {attempt.message}"
            found.append(Event("Warning" if bad else "Normal", f"Attempt{attempt.result}", note[:1024], "EndAttempt"))
    return found


def _turn(old: TrainingJobStatus, new: TrainingJobStatus) -> list[Event]:
    """A change of Ready's reason that people should hear of."""
    reason, message = _ready(new)
    ended = new.finished and not old.finished
    if reason == _ready(old)[0] and not ended:
        return []
    if ended:
        return [Event("Warning" if new.state == "Failed" else "Normal", reason, message[:1024], "Finish")]
    if reason in _WARNINGS:
        return [Event("Warning", reason, message[:1024])]
    if reason in (names.REASON_QUEUED, names.REASON_RUNNING, names.REASON_SUSPENDED):
        return [Event("Normal", reason, message[:1024])]
    return []


def _resized(old: TrainingJobStatus, new: TrainingJobStatus) -> list[Event]:
    """An elastic job goes on with fewer nodes, or with more."""
    (before, _), (reason, message) = _ready(old), _ready(new)
    elastic = any(attempt.nodes is not None for attempt in (new.attempts or [])[-1:])
    if not elastic or old.nodes == new.nodes or (before, reason) != (names.REASON_RUNNING, names.REASON_RUNNING):
        return []
    return [Event("Normal", "Resized", message[:1024])]


def _ready(status: TrainingJobStatus) -> tuple[str, str]:
    for condition in status.conditions or []:
        if condition.type == names.READY:
            return condition.reason, condition.message
    return "", ""


def _straggling(old: TrainingJobStatus, new: TrainingJobStatus) -> list[Event]:
    """One process has begun to hold up the others."""
    known, found = old.progress and old.progress.straggler, new.progress and new.progress.straggler
    if not found or (known and known.rank == found.rank):
        return []
    text = f"rank {found.rank} takes {found.ratio} times as long as the median of the others: all of them wait for it"
    return [Event("Warning", "Straggler", text)]
