"""How fast a run goes through its schedule, so that it ends in time: bent, and not cut off.

Cut off, a run stops at a learning rate that was meant for the middle, and throws away what the end is for. Fitted to
what there is time for, it ends at zero like any other (Li et al., "Budgeted Training", ICLR 2020).
"""

from dataclasses import dataclass
from typing import Any

from darkroom_trainer.clock import now
from darkroom_trainer.host import Host

_WORTH_BENDING = 0.02
"""Of the steps left: smaller corrections follow noise."""


@dataclass(frozen=True)
class Pace:
    """Position in the schedule, 0 to `steps`, as a straight line from step `since` at `position` to the end at step `end`.

    A run with time enough has one line from 0 to `steps`, and its position is its step.
    """

    steps: int
    end: int
    since: int = 0
    position: float = 0.0

    @property
    def bent(self) -> bool:
        """Whether the run ends before its last step."""
        return self.end < self.steps

    def at(self, step: int) -> float:
        """Position of a step, both counted from 0."""
        left, steps = self.steps - self.position, self.end - self.since
        if steps == left:  # not bent: to the bit
            return self.position + (step - self.since)
        return self.position + left * (step - self.since) / max(1, steps)

    def to(self, end: int, *, step: int) -> "Pace":
        """Go on from `step` to another end; the same if it hardly differs."""
        end = min(max(end, step), self.steps)
        if end == self.end or (
            abs(end - self.end) <= _WORTH_BENDING * (self.end - step) and end not in (step, self.steps)
        ):
            return self
        return Pace(self.steps, end, since=step, position=self.at(step))

    def dump(self) -> list[float] | None:
        """For a checkpoint: None for a run that was never bent."""
        straight = (self.end, self.since, self.position) == (self.steps, 0, 0.0)
        return None if straight else [self.end, self.since, self.position]

    @classmethod
    def load(cls, steps: int, content: Any) -> "Pace":
        """The inverse of `dump`."""
        return cls(steps, int(content[0]), int(content[1]), float(content[2])) if content else cls(steps, steps)


class TimeBudget:
    """Seconds that a run may take: of all its starts together, by its own clock; or until what the operator last said."""

    def __init__(self, seconds: float | None, *, used: float, host: Host) -> None:
        self._seconds, self._before, self._host = seconds, used, host

    @property
    def used(self) -> float:
        """Seconds of this start and of those before it, as far as their checkpoints tell."""
        return self._before + now() - self._host.clock.start

    @property
    def seconds_left(self) -> float | None:
        """None: as long as it takes."""
        own = None if self._seconds is None else self._seconds - self.used
        told = self._host.seconds_left()
        return own if told is None else told
