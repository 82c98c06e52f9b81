"""What steps and evaluations take, as measured so far: how long the rest will take, and how far a time will reach."""

from collections.abc import Mapping
from statistics import median

from darkroom_trainer.clock import Eta, Throughput, eta
from darkroom_trainer.data.sampler import Plan

_MARGIN = 0.02
"""Of the time left: speed varies, and a run that ends a little early has lost nothing."""
_SAVINGS = 3
"""Checkpoint, best weights and export at the end, each about as long as a checkpoint."""


class Tempo:
    """sizes: images of each split."""

    def __init__(self, plan: Plan, sizes: Mapping[str, int]) -> None:
        self._plan, self._sizes = plan, sizes
        self._evaluations: list[float] = []
        self.throughput = Throughput()

    def add_steps(self, steps: int, seconds: float) -> None:
        """One window of training alone."""
        self.throughput.add(steps * self._plan.batch, seconds)

    def add_evaluation(self, seconds: float) -> None:
        """One of `val`."""
        self._evaluations.append(seconds)

    def restart(self) -> None:
        """Steps of another phase take another time."""
        self.throughput = Throughput()

    @property
    def evaluation_seconds(self) -> float:
        """Of `val`: as usual or, before there was one, at the speed of training; 0 before there is a speed."""
        rate = self.throughput.images_per_second
        if self._evaluations:
            return median(self._evaluations)
        return self._sizes["val"] / rate if rate else 0.0

    def eta(self, step: int, end: int, evaluated: int) -> Eta | None:
        """From `step` to `end`, with an evaluation after each epoch; None before there is a speed."""
        evaluations = max(0, self._plan.epochs_done(end) - evaluated)
        seconds = evaluations * median(self._evaluations) if self._evaluations else 0.0
        return eta(max(0, end - step) * self._plan.batch, self.throughput, seconds)

    def last_step(self, step: int, *, seconds_left: float, saving: float) -> int | None:
        """The step at which to end, so that there is time for the last evaluation, the export and the checkpoint.

        `saving`: seconds of a checkpoint. None before there is a speed.
        """
        rate = self.throughput.images_per_second
        if not rate:
            return None
        val, test = self._sizes["val"], self._sizes.get("test", 0)
        evaluation = self.evaluation_seconds
        usable = seconds_left * (1 - _MARGIN) - evaluation * (1 + test / val) - _SAVINGS * saving
        return step + max(0, int(usable / (self._plan.batch / rate + evaluation / self._plan.steps_per_epoch)))
