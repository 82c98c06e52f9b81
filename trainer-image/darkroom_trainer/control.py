"""The one small exchange between processes every few steps, and what follows from it on all of them at once."""

import math
import signal
import time
from dataclasses import dataclass
from typing import Any

import torch

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.data.sampler import BatchPlan
from darkroom_trainer.errors import DataError, TrainerError
from darkroom_trainer.parallel import World
from darkroom_trainer.report import say

MOST_STEPS, SECONDS = 50, 0.5
_LOSS, _IMAGES, _CORRUPT, _LEAVE, _SAVE, _PACE = range(6)


class AskedToLeave(Exception):  # noqa: N818 - not an error
    """Every process leaves at the same step, after a checkpoint."""

    def __init__(self, step: int) -> None:
        super().__init__(f"asked to leave; a checkpoint was written at step {step}")


class Leaving:
    """SIGTERM sets a flag; the flag is acted on where all processes can act together."""

    asked = False

    @classmethod
    def listen(cls) -> None:
        """Install the handler."""
        cls.asked = False

        def on_signal(_number: int, _frame: Any) -> None:
            cls.asked = True

        signal.signal(signal.SIGTERM, on_signal)


@dataclass(frozen=True)
class Word:
    """What all processes agreed on."""

    loss: float
    """Mean over the images since the last exchange."""
    images: float
    seconds: float
    leave: bool
    save: bool


class Control:
    """Collects since the last exchange; no device synchronisation in between."""

    def __init__(self, config: TrainerConfig, world: World, plan: BatchPlan, images: int) -> None:
        self._config, self._world, self._plan = config, world, plan
        self._allowed = float(config.vision.data.max_corrupt_fraction) * images
        self._loss = torch.zeros((), dtype=torch.float64, device=world.device)
        self._images = 0
        self._corrupt: set[str] = set()
        self._told_corrupt = 0
        self._pace, self._next = 1, 0
        self._since = self._saved_at = time.monotonic()
        self._steps_since = 0

    def saw_loss(self, loss_sum: torch.Tensor, images: int) -> None:
        """A micro-batch's summed loss, on the device."""
        self._loss += loss_sum
        self._images += images

    def saw_corrupt(self, files: list[str]) -> None:
        """Names of files that could not be read."""
        self._corrupt.update(files)

    def saved(self) -> None:
        """A checkpoint has just been written."""
        self._saved_at = time.monotonic()

    def due(self, done: int) -> bool:
        """Whether this is a step to exchange at; the same on every process."""
        self._steps_since += 1
        return done >= self._next or done == self._plan.total_steps

    def exchange(self, done: int) -> Word:
        """Sum over all processes, and read the sums."""
        seconds = time.monotonic() - self._since
        values = torch.zeros(6, dtype=torch.float64, device=self._world.device)
        values[_LOSS] = self._loss
        values[_IMAGES], values[_CORRUPT], values[_LEAVE] = self._images, len(self._corrupt), float(Leaving.asked)
        if self._world.first:
            values[_SAVE] = time.monotonic() - self._saved_at >= self._config.checkpoint.every_seconds
            values[_PACE] = self._pace_for(seconds / max(1, self._steps_since))
        told = self._world.sum(values).tolist()
        self._next = done + int(told[_PACE])
        self._loss.zero_()
        self._images, self._steps_since, self._since = 0, 0, time.monotonic()
        if told[_CORRUPT] > self._told_corrupt:
            self._told_corrupt = int(told[_CORRUPT])
            self.check_corrupt()
        loss = told[_LOSS] / told[_IMAGES] if told[_IMAGES] else 0.0
        if not math.isfinite(loss):
            raise TrainerError(
                f"the loss is {loss} at step {done}: training diverged; a lower vision.optimizer.learningRate, a longer "
                "warm-up or vision.optimizer.clipNorm helps"
            )
        return Word(loss, told[_IMAGES], seconds, leave=told[_LEAVE] > 0, save=told[_SAVE] > 0)

    @staticmethod
    def _pace_for(step_seconds: float) -> int:
        """Steps until the next exchange: about half a second, so that nobody waits longer to be heard."""
        return max(1, min(MOST_STEPS, round(SECONDS / max(step_seconds, 1e-6))))

    def check_corrupt(self) -> None:
        """Files that no process could read, each counted once; DataError beyond the allowed share."""
        files = sorted(set().union(*self._world.gather(self._corrupt)))
        if not files:
            return
        names = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
        if len(files) > self._allowed:
            raise DataError(
                f"{len(files)} images cannot be read, more than vision.data.maxCorruptFraction "
                f"({self._config.vision.data.max_corrupt_fraction}) allows: {names}"
            )
        if self._world.first:
            say(f"{len(files)} images cannot be read and are skipped: {names}")
