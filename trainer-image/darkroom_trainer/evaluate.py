"""Metrics of a whole split, the same at any number of processes."""

from collections.abc import Callable

import torch
from torch import nn

from darkroom_trainer.corrupt import CorruptFiles
from darkroom_trainer.data.loader import make_loader
from darkroom_trainer.data.sampler import EvaluationBatches
from darkroom_trainer.optim import Precision
from darkroom_trainer.parallel import Group, Pulse
from darkroom_trainer.tasks.base import ImageSet, Task


class Evaluator:
    """Counts every sample of a split exactly once: shards without padding, sums of totals.

    Padding shards to equal length, as a distributed sampler does, counts some samples twice and biases the metric.
    """

    def __init__(
        self,
        task: Task,
        group: Group,
        *,
        batch: int,
        workers: int,
        precision: Precision,
        memory_format: torch.memory_format,
        corrupt: CorruptFiles,
        alive: Callable[[], None],
    ) -> None:
        self._task, self._group, self._batch, self._workers, self._alive = task, group, batch, workers, alive
        self._precision, self._memory_format, self._corrupt = precision, memory_format, corrupt

    @torch.inference_mode()
    def measure(
        self, model: nn.Module, split: str, images: ImageSet, *, stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Metrics by name; None if a process was told to leave meanwhile. Raises DataError as CorruptFiles does.

        `model` is left in evaluation mode. Every process must call this at the same place.
        """
        model.eval()
        totals = self._task.new_totals(self._group.device)
        if not self._count(model, split, images, totals, stop):
            return None
        if any(self._group.gather(self._corrupt.news)):
            self._corrupt.exchange()
        return self._task.metrics(self._group.all_reduce(totals))

    def _count(
        self, model: nn.Module, split: str, images: ImageSet, totals: torch.Tensor, stop: Callable[[], bool]
    ) -> bool:
        """All processes go through equally many rounds, so that they can agree to leave between two."""
        rank, world, device = self._group.rank, self._group.world, self._group.device
        batches = EvaluationBatches(len(images), batch=self._batch, rank=rank, world=world)
        workers = self._workers if len(batches) > 1 else 0
        loader = iter(make_loader(images, batches, self._task.collate, workers=workers, device=device))
        pulse, nothing = Pulse(self._group), torch.zeros(0, device=device)
        for round_ in range(batches.rounds):
            if round_ < len(batches):
                batch = next(loader)
                self._corrupt.note(split, batch.corrupt)
                with self._precision.autocast():
                    self._task.evaluate(model, batch.to(device, self._memory_format), totals)
            self._alive()
            if pulse.tick() and pulse.beat(nothing, stop=stop()).stop:
                return False
        return True
