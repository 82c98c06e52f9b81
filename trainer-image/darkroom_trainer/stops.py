"""What ends a run before its schedule does: a loss that has gone, and a `val` that stopped getting better."""

import math
from collections.abc import Mapping

from darkroom_api.v1alpha1.progression import EarlyStop
from darkroom_trainer.errors import ConfigError, DivergenceError
from darkroom_trainer.schedule import is_plateau
from darkroom_trainer.state import Progress

EXPLOSION = 20.0
"""A loss of so many times the first one won't come back."""
_LEAST_LOSS = 0.1
"""A first loss that is closer to zero says nothing."""


def check_loss(progress: Progress, loss: float, *, steps: int, learning_rate: float) -> None:
    """`loss`: mean of the last `steps`, the same on every process. Raises DivergenceError if going on is of no use."""
    if not math.isfinite(loss):
        raise DivergenceError.after(progress.step, steps=steps, learning_rate=learning_rate)
    if progress.first_loss is None:
        progress.first_loss = loss
    first = progress.first_loss
    if loss > EXPLOSION * max(first, _LEAST_LOSS):
        raise DivergenceError.exploded(progress.step, steps=steps, learning_rate=learning_rate, first=first, loss=loss)


class Plateau:
    """`spec.vision.schedule.earlyStop`; None: never. The values so far are in `progress`."""

    def __init__(self, stop: EarlyStop | None, progress: Progress, *, best_metric: str) -> None:
        self._stop, self._progress = stop, progress
        self._metric = stop and (stop.metric or best_metric)

    def note(self, metrics: Mapping[str, float]) -> None:
        """Those of an epoch; raises ConfigError if the wanted one isn't among them."""
        if self._metric is None:
            return
        if self._metric not in metrics:
            raise ConfigError(
                f"vision.schedule.earlyStop.metric: no {self._metric!r} in val; there are {', '.join(metrics)}"
            )
        self._progress.history.append(metrics[self._metric])

    @property
    def reached(self) -> bool:
        return self._stop is not None and is_plateau(
            self._progress.history, self._stop, less_is_better=self._metric == "loss"
        )
