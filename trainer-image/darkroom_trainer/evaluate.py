"""Metrics of a whole split, the same at any number of processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from darkroom_trainer.data.sampler import EvaluationBatches
from darkroom_trainer.features import Features
from darkroom_trainer.feed import Feed
from darkroom_trainer.parallel import Pulse
from darkroom_trainer.summary.review import Reviewer
from darkroom_trainer.tasks.base import ImageSet


class Evaluator:
    """Counts every sample of a split exactly once: shards without padding, sums of totals.

    Padding shards to equal length, as a distributed sampler does, counts some samples twice and biases the metric.
    """

    def __init__(self, feed: Feed, *, batch: int) -> None:
        self._feed, self._batch = feed, batch
        self.reviewer = Reviewer()
        """Of the newest evaluation."""

    @torch.inference_mode()
    def measure(
        self, model: nn.Module, split: str, images: ImageSet | Features, *, stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Metrics by name; None if a process was told to leave meanwhile. Raises DataError as CorruptFiles does.

        `model` is left in evaluation mode. Every process must call this at the same place.
        """
        model.eval()
        self.reviewer = Reviewer()
        totals = self._feed.task.new_totals(self._feed.group.device)
        if not self._count(model, split, images, totals, stop):
            return None
        if any(self._feed.group.gather(self._feed.corrupt.news)):
            self._feed.corrupt.exchange()
        task, group = self._feed.task, self._feed.group
        merged = task.merge(totals, group)
        return group.share(lambda: task.metrics(merged))

    def _count(
        self, model: nn.Module, split: str, images: ImageSet | Features, totals: Any, stop: Callable[[], bool]
    ) -> bool:
        """All processes go through equally many rounds, so that they can agree to leave between two."""
        rank, world, device = self._feed.group.rank, self._feed.group.world, self._feed.group.device
        batches = EvaluationBatches(len(images), batch=self._batch, rank=rank, world=world)
        loader = self._feed.batches(images, batches)
        pulse, nothing = Pulse(self._feed.group), torch.zeros(0, device=device)
        for round_ in range(batches.rounds):
            if round_ < len(batches):
                batch = self._feed.place(next(loader))
                self._feed.corrupt.note(split, batch.corrupt)
                with self._feed.precision.autocast():
                    verdicts = self._feed.task.evaluate(model, batch, totals)
                if verdicts:
                    self.reviewer.add(batches[round_], verdicts, batch.valid)
            self._feed.alive()
            if pulse.tick() and pulse.beat(nothing, stop=stop()).stop:
                return False
        return True
