"""Learning rate, image size and strength of augmentation as functions of the step: nothing to save, nothing to restore."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from darkroom_api.v1alpha1.architectures import ARCHITECTURES
from darkroom_api.v1alpha1.progression import EarlyStop
from darkroom_api.v1alpha1.vision import Schedule, Vision
from darkroom_trainer.errors import ConfigError


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


@dataclass(frozen=True)
class ImageSize:
    """Progressive resizing: from `start` to below `full` pixels a side in steps of `step`, until a share of the schedule.

    As in FFCV's recipes for ImageNet, which train at 160 to 192 pixels and evaluate at 256.
    """

    full: int
    start: int
    until: float
    step: int

    @classmethod
    def of(cls, vision: Vision) -> "ImageSize":
        """Raises ConfigError if the network cannot take such small images."""
        chosen, full = vision.schedule.resolution, vision.image_size
        if chosen is None:
            return cls(full, full, 0.0, 1)
        needs = ARCHITECTURES[vision.model.architecture]
        if chosen.start < needs.min_size or chosen.start % needs.multiple_of or chosen.step % needs.multiple_of:
            raise ConfigError(
                f"vision.schedule.resolution: {vision.model.architecture} takes images of {needs.min_size} pixels and more, in "
                f"multiples of {needs.multiple_of}: start is {chosen.start}, step is {chosen.step}"
            )
        return cls(full, chosen.start, float(chosen.until), chosen.step)

    def at(self, progress: float) -> int | None:
        """Pixels a side at a share of the schedule; None: all that there are."""
        if progress >= self.until:
            return None
        grown = (self.full - self.start) * progress / self.until
        return self.start + int(grown // self.step) * self.step


def strength(ramp_up: float, progress: float) -> float:
    """Of augmentation, 0 to 1, at a share of the schedule."""
    return 1.0 if progress >= ramp_up else progress / ramp_up


def is_plateau(values: Sequence[float], stop: EarlyStop, *, less_is_better: bool) -> bool:
    """Whether the last `patience` epochs brought nothing better than the ones before; `values`: of each epoch."""
    if len(values) <= stop.patience:
        return False
    signed = [-value if less_is_better else value for value in values]
    return max(signed[-stop.patience :]) <= max(signed[: -stop.patience]) + float(stop.min_delta)
