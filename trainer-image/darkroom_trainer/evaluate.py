"""Metrics of a whole split, the same at any number of processes."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from darkroom_trainer.features import Features
from darkroom_trainer.feed import Feed
from darkroom_trainer.summary.review import Reviewer
from darkroom_trainer.tasks.base import Batch, ImageSet, SampleRef


class Evaluator:
    """Counts every sample of a split exactly once: shards without padding, sums of totals.

    Padding shards to equal length, as a distributed sampler does, counts some samples twice and biases the metric.
    """

    def __init__(self, feed: Feed, *, batch: int, reviews: bool) -> None:
        self._feed, self._batch, self._reviews = feed, batch, reviews
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
        self.reviewer, feed = Reviewer(), self._feed
        totals = feed.task.new_totals(feed.group.device)

        def count(refs: Sequence[SampleRef], batch: Batch) -> None:
            feed.corrupt.note(split, batch.corrupt)
            with feed.precision.autocast():
                verdicts = feed.task.evaluate(model, batch, totals)
            if verdicts and self._reviews:
                self.reviewer.add(refs, verdicts, batch.valid)

        if not feed.each(images, batch=self._batch, stop=stop, work=count):
            return None
        if any(feed.group.gather(feed.corrupt.news)):
            feed.corrupt.exchange()
        task, group = feed.task, feed.group
        merged = task.merge(totals, group)
        return group.share(lambda: task.metrics(merged))
