"""The learning rate as a function of the step: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass

from darkroom_api.v1alpha1.vision import Schedule


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up, then Cosine, Linear or Step.

    steps: of the whole run; steps_per_epoch need not be whole, for epochs do not end where batches do.
    """

    peak: float
    decay: str
    steps: int
    steps_per_epoch: float
    warmup_epochs: float = 0.0
    step_epochs: int = 30
    step_factor: float = 0.1

    @classmethod
    def of(cls, schedule: Schedule, *, peak: float, steps: int, steps_per_epoch: float) -> "LearningRate":
        return cls(
            peak=peak,
            decay=schedule.decay,
            steps=steps,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=float(schedule.warmup_epochs),
            step_epochs=schedule.step_epochs,
            step_factor=float(schedule.step_factor),
        )

    @property
    def warmup(self) -> int:
        """Steps of the warm-up; a warm-up longer than the run fills the run."""
        return min(self.steps, round(self.warmup_epochs * self.steps_per_epoch))

    def at(self, step: float) -> float:
        """Learning rate of `step`, counted from 0; between two of a schedule that is gone through faster than planned.

        The first step is not at zero: it would teach nothing.
        """
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        return self.peak * self._after_warmup(step)

    def _after_warmup(self, step: float) -> float:
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        match self.decay:
            case "Cosine":
                return 0.5 * (1 + math.cos(math.pi * progress))
            case "Linear":
                return 1 - progress
            case "Step":
                epoch = (step + 1e-9) // self.steps_per_epoch if self.steps_per_epoch else 0
                return self.step_factor ** (epoch // self.step_epochs)
            case other:
                raise ValueError(f"no decay named {other!r}")
