"""How images get from a split to the network of this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from darkroom_trainer.corrupt import CorruptFiles
from darkroom_trainer.data.loader import make_loader
from darkroom_trainer.data.sampler import EvaluationBatches, TrainingBatches
from darkroom_trainer.features import Features
from darkroom_trainer.optim import Precision
from darkroom_trainer.parallel import Group
from darkroom_trainer.tasks.base import Batch, ImageSet, Task


@dataclass(frozen=True)
class Feed:
    """The same for training, evaluation and the computing of features.

    workers: loader processes of this process; alive: called after each batch of an evaluation or of features.
    """

    task: Task
    group: Group
    workers: int
    precision: Precision
    memory_format: torch.memory_format
    corrupt: CorruptFiles
    alive: Callable[[], None] = lambda: None

    def batches(self, images: ImageSet | Features, draws: TrainingBatches | EvaluationBatches) -> Iterator[Batch]:
        """In the order of `draws`; a lone batch is not worth a process."""
        if isinstance(images, Features):
            return images.batches(draws)
        workers = self.workers if len(draws) > 1 else 0
        return iter(make_loader(images, draws, self.task.collate, workers=workers, device=self.group.device))

    def place(self, batch: Batch) -> Batch:
        """On the device, in the layout that its kernels want."""
        return batch.to(self.group.device, self.memory_format)
