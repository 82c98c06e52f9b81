"""How images get from a split to the network of this process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from darkroom_trainer.corrupt import CorruptFiles
from darkroom_trainer.data.loader import make_loader
from darkroom_trainer.data.sampler import EvaluationBatches, TrainingBatches
from darkroom_trainer.features import Features
from darkroom_trainer.optim import Precision
from darkroom_trainer.parallel import Group, Pulse
from darkroom_trainer.tasks.base import Batch, ImageSet, SampleRef, Task


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

    def each(
        self,
        images: ImageSet | Features,
        *,
        batch: int,
        stop: Callable[[], bool],
        work: Callable[[Sequence[SampleRef], Batch], object],
    ) -> bool:
        """Give `work` every sample once over all processes, in batches on the device; False if one was told to leave meanwhile.

        All processes go through equally many rounds, so that they can agree to leave between two. Every process must call
        this at the same place.
        """
        draws = EvaluationBatches(len(images), batch=batch, rank=self.group.rank, world=self.group.world)
        loader = self.batches(images, draws)
        pulse, nothing = Pulse(self.group), torch.zeros(0, device=self.group.device)
        for round_ in range(draws.rounds):
            if round_ < len(draws):
                work(draws[round_], self.place(next(loader)))
            self.alive()
            if pulse.tick() and pulse.beat(nothing, stop=stop()).stop:
                return False
        return True

    def place(self, batch: Batch) -> Batch:
        """On the device, in the layout that its kernels want."""
        return batch.to(self.group.device, self.memory_format)
