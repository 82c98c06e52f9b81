"""Which samples make up which step, as pure functions: the same on one process and on a hundred.

The passes over the training split are laid end to end: epoch 0's permutation, then epoch 1's, and so on. Step s takes
positions s*G to (s+1)*G of that line, G being the global batch. So every batch is full, every sample comes exactly once
per epoch, none is dropped, and the whole state of the sampler is one number: the step. An epoch that does not divide
into batches ends inside one; the last step of a run is filled up with the beginning of one more pass.

A step's samples are cut into micro-batches that do not depend on the number of processes either. They are dealt to the
processes like cards. That is what makes a run continue exactly on another number of them: BatchNorm, Dropout and MixUp
see the same micro-batches, wherever they are computed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise

import torch

from darkroom_trainer.data.blend import Blend
from darkroom_trainer.tasks.base import SampleRef


def derive_seed(*key: int | str) -> int:
    """63 bits that depend on every part of the key."""
    text = "/".join(map(str, key)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


@lru_cache(maxsize=2)  # a batch touches two epochs at most times
def permutation(samples: int, seed: int, epoch: int) -> torch.Tensor:
    """Order of an epoch, int64 [samples]."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(derive_seed("order", seed, epoch)))


@dataclass(frozen=True)
class Plan:
    """Every step of a run.

    samples: of the training split; batch: global batch G; micro_batch: most samples that a process takes at once; blend:
    which draws are synthetic, absent: none. The real ones are laid end to end as above, the synthetic ones numbered.
    """

    samples: int
    batch: int
    micro_batch: int
    epochs: int
    seed: int
    blend: Blend | None = None

    @property
    def steps(self) -> int:
        return math.ceil(self.epochs * self.samples / self.batch)

    @property
    def steps_per_epoch(self) -> float:
        return self.samples / self.batch

    @property
    def micro_batches(self) -> int:
        """Micro-batches of each step."""
        return math.ceil(self.batch / self.micro_batch)

    def epochs_done(self, step: int) -> int:
        """Whole epochs that `step` steps have seen."""
        return min(self.epochs, step * self.batch // self.samples)

    def refs(self, step: int, micro_batch: int, strength: float = 1.0) -> list[SampleRef]:
        """Samples of one micro-batch of one step, both counted from 0; sizes differ by one at most."""
        first, last = (
            step * self.batch + self.batch * part // self.micro_batches for part in (micro_batch, micro_batch + 1)
        )
        if self.blend is None:
            return list(self._along(first, last, strength))
        return self._blended(self.blend, first, last, strength)

    def _blended(self, blend: Blend, first: int, last: int, strength: float) -> list[SampleRef]:
        """The draws from `first` to before `last`, synthetic and real ones in the order in which they are due."""
        passed = [blend.synthetic(draw) for draw in range(first, last + 1)]
        real = self._along(first - passed[0], last - passed[-1], strength)
        return [
            SampleRef(before, 0, strength, synthetic=True) if after > before else next(real)
            for before, after in pairwise(passed)
        ]

    def _along(self, position: int, end: int, strength: float) -> Iterator[SampleRef]:
        """The line from `position` to before `end`; one slice per epoch, for a tensor is slow to ask one by one."""
        while position < end:
            epoch, place = divmod(position, self.samples)
            indices = permutation(self.samples, self.seed, epoch)[place : place + end - position].tolist()
            yield from (SampleRef(index, epoch, strength) for index in indices)
            position += len(indices)


def share(micro_batches: int, rank: int, world: int) -> range:
    """Micro-batches of a step that a process computes: none if there are more processes than micro-batches."""
    return range(rank, micro_batches, world)


def even_share(micro_batches: int, rank: int, world: int) -> range:
    """Equally many for every process; numbers from `micro_batches` on repeat one, and must not count."""
    return range(rank, math.ceil(micro_batches / world) * world, world)


class TrainingBatches:
    """Batch sampler of one process: its share of every step from `start` to before `end`."""

    def __init__(
        self,
        plan: Plan,
        share: range,
        *,
        start: int,
        end: int,
        strength: Callable[[int], float] = lambda _: 1.0,
    ) -> None:
        """strength: of the augmentation in a step."""
        self._strength = strength
        self._plan, self._share, self._steps = plan, share, range(start, end)

    def __len__(self) -> int:
        return len(self._steps) * len(self._share)

    def __iter__(self) -> Iterator[list[SampleRef]]:
        for step in self._steps:
            for micro_batch in self._share:
                yield self._plan.refs(step, micro_batch % self._plan.micro_batches, self._strength(step))


class EvaluationBatches(Sequence[list[SampleRef]]):
    """Batches of one process: every sample of the split lies in exactly one batch of one process.

    Every process gets equally many batches, so that they can talk to each other between two; some of a process's last
    ones may be empty and are left out by `__len__`; `rounds` counts them. With several views every sample comes that
    often, as if in epoch 0, 1 and so on; the first `start` of all draws are left out.
    """

    def __init__(self, samples: int, *, batch: int, rank: int, world: int, views: int = 1, start: int = 0) -> None:
        self._samples, self._batch = samples, batch
        self._draws = range(start + rank, samples * views, world)
        self.rounds = math.ceil(len(range(start, samples * views, world)) / batch)

    def __len__(self) -> int:
        return math.ceil(len(self._draws) / self._batch)

    def __getitem__(self, round_: int) -> list[SampleRef]:  # type: ignore[override]
        if not 0 <= round_ < len(self):
            raise IndexError(round_)
        draws = self._draws[round_ * self._batch : (round_ + 1) * self._batch]
        return [SampleRef(draw % self._samples, draw // self._samples) for draw in draws]
