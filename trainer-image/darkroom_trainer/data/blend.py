"""Which draws of a run are synthetic: a pure function of the draw's number, the same on any number of processes.

The draws of a run stand in a line (see `data.sampler`). Of the first d of them, `Blend.synthetic(d)` are synthetic and
the others real: so a scene's number and a real image's place in its passes are counted, not remembered, every batch of a
mixed run has the same share, and a run that is interrupted anywhere goes on with the very next of both.
"""

from dataclasses import dataclass, replace
from typing import Any

from darkroom_api.v1alpha1.synthetic import Synthetic, SyntheticSchedule
from darkroom_trainer.pace import Pace

_ROUNDING = 1e-6
"""Of a draw: sums of shares miss whole numbers by less."""


@dataclass(frozen=True)
class Curve:
    """How the share of synthetic draws goes along the schedule, 0 to 1; its mean is `ratio`."""

    ratio: float
    schedule: SyntheticSchedule

    def before(self, position: float) -> float:
        """The integral of the share from 0 to a position."""
        match self.schedule:
            case SyntheticSchedule.PRETRAIN:
                return min(position, self.ratio)
            case SyntheticSchedule.MIXED:
                return self.ratio * position
            case _:
                return self._annealed(position)

    def _annealed(self, position: float) -> float:
        """A straight line to 0 at 1; with a ratio beyond a half, it begins where all images are synthetic still."""
        slope = 2 * self.ratio if self.ratio <= 0.5 else 1 / (2 * max(1 - self.ratio, 1e-9))
        falls = max(0.0, 1 - 1 / slope)
        if position <= falls:
            return position
        return falls + slope * ((1 - falls) ** 2 - (1 - position) ** 2) / 2

    @property
    def even(self) -> bool:
        """Whether the share is the same all along."""
        return self.schedule == SyntheticSchedule.MIXED


@dataclass(frozen=True)
class Blend:
    """From draw `since`, at `position` of the schedule (0 to 1) and with `passed` synthetic draws behind it, to draw `end`."""

    curve: Curve
    end: int
    since: int = 0
    position: float = 0.0
    passed: int = 0

    @classmethod
    def of(cls, synthetic: Synthetic | None, *, draws: int) -> "Blend | None":
        """Of a run that is not bent; None for one on real images alone."""
        if synthetic is None:
            return None
        return cls(Curve(float(synthetic.ratio), SyntheticSchedule(synthetic.schedule)), draws)

    def synthetic(self, draw: int) -> int:
        """How many of the first `draw` draws are synthetic; draw >= since."""
        length = max(1, self.end - self.since) / (1 - self.position) if self.position < 1 else 1.0
        position = min(1.0, self.position + (draw - self.since) / length)
        share = self.curve.before(position) - self.curve.before(self.position)
        return self.passed + int(share * length + _ROUNDING)

    def bent(self, pace: Pace, *, step: int, batch: int) -> "Blend":
        """The same schedule at another pace from `step` on; the same object where that changes nothing."""
        draw, position = step * batch, pace.at(step) / max(1, pace.steps)
        ahead = self.curve.before(1.0) - self.curve.before(min(1.0, position))
        if self.curve.even or ahead <= 0 or pace.end * batch == self.end:
            return self
        return replace(self, end=pace.end * batch, since=draw, position=position, passed=self.synthetic(draw))

    def dump(self) -> list[float]:
        """For a checkpoint."""
        return [self.end, self.since, self.position, self.passed]

    def load(self, content: Any) -> "Blend":
        """The inverse of `dump`; with None, as it is."""
        if not content:
            return self
        return replace(
            self, end=int(content[0]), since=int(content[1]), position=float(content[2]), passed=int(content[3])
        )
