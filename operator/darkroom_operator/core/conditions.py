"""Conditions as metav1.Condition has them, and times as the API server writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from darkroom_api.v1alpha1.training_job_status import Condition


@dataclass(frozen=True)
class Stand:
    """What a condition should say now."""

    status: bool
    reason: str
    message: str = ""


def conditions(
    old: Sequence[Condition], wanted: Mapping[str, Stand], *, generation: int, now: datetime
) -> list[Condition]:
    """The new list, in the order of `wanted`; lastTransitionTime moves only when the status does."""
    before = {condition.type: condition for condition in old}
    return [_condition(kind, stand, before.get(kind), generation, now) for kind, stand in wanted.items()]


def _condition(kind: str, stand: Stand, old: Condition | None, generation: int, now: datetime) -> Condition:
    status: Literal["True", "False"] = "True" if stand.status else "False"
    return Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old and old.status == status else timestamp(now),
        reason=stand.reason,
        message=stand.message[:2048],
    )


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """RFC 3339 to an aware datetime."""
    return datetime.fromisoformat(text) if text else None
