"""What to tell in Events: the difference between the stored status and the new one."""

from darkroom_api import names
from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord, TuningSweepStatus
from darkroom_operator.core.types import Event

_WARNINGS = (names.REASON_INVALID_SPEC, names.REASON_REJECTED, names.REASON_NAME_TAKEN)


def events_between(old: TuningSweepStatus, new: TuningSweepStatus) -> tuple[Event, ...]:
    """Events of one step, in the order in which things happened."""
    return (*_trials_ended(old, new), *_trials_begun(old, new), *_better(old, new), *_turn(old, new))


def _trials_ended(old: TuningSweepStatus, new: TuningSweepStatus) -> list[Event]:
    known = {record.number for record in old.ledger or []}
    return [
        Event("Warning" if r.result == "Failed" else "Normal", f"Trial{r.result}", _words(r)[:1024], "EndTrial")
        for r in new.ledger or []
        if r.number not in known
    ]


def _words(record: TrialRecord) -> str:
    values = ", ".join(f"{name}={value}" for name, value in record.parameters.items())
    came = ", ".join(record.values or []) or f"{record.reason}: {record.message}"
    return f"trial {record.number} ({values}): {came}"


def _trials_begun(old: TuningSweepStatus, new: TuningSweepStatus) -> list[Event]:
    before, after = (status.trials.created if status.trials else 0 for status in (old, new))
    failed_at_once = {record.number for record in new.ledger or [] if record.reason == names.REASON_INVALID_PARAMETERS}
    begun = [str(number) for number in range(before, after) if number not in failed_at_once]
    return (
        [Event("Normal", "TrialsStarted", f"created trials {', '.join(begun)}"[:1024], "StartTrial")] if begun else []
    )


def _better(old: TuningSweepStatus, new: TuningSweepStatus) -> list[Event]:
    if new.best is None or (old.best and old.best.trial == new.best.trial):
        return []
    return [Event("Normal", "BestTrial", f"trial {new.best.trial} is the best so far: {new.best.value}", "EndTrial")]


def _turn(old: TuningSweepStatus, new: TuningSweepStatus) -> list[Event]:
    """A change of Ready's reason that people should hear of."""
    reason, message = _ready(new)
    if reason == _ready(old)[0] and bool(new.finished) == bool(old.finished):
        return []
    if new.finished:
        return [Event("Warning" if new.state == "Failed" else "Normal", reason, message[:1024], "Finish")]
    return [Event("Warning" if reason in _WARNINGS else "Normal", reason, message[:1024])]


def _ready(status: TuningSweepStatus) -> tuple[str, str]:
    for condition in status.conditions or []:
        if condition.type == names.READY:
            return condition.reason, condition.message
    return "", ""
