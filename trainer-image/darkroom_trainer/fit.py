"""How many images a process can take at once: tried before the first step, where no exchange of gradients can hang."""

import math
from collections.abc import Callable

import torch

from darkroom_api.v1alpha1.parallelism import Strategy
from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.optim import Precision, memory_format
from darkroom_trainer.parallel import Group
from darkroom_trainer.tasks.base import ImageSet, SampleRef, Task

_COPIES = 4
"""Copies of the weights that training keeps beside them: two of the optimizer, the gradients' buckets, the moving average."""
_WORDS = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "could not create a primitive")
"""Of the CPU's allocator, of C++, of CUDA, and of oneDNN, which has no other word for it."""


def micro_batch_of(vision: Vision, task: Task, images: ImageSet, group: Group, *, say: Callable[[str], None]) -> int:
    """As configured; else what the processes share out, as far as it fits into their GPUs' memory.

    Not tried for FSDP and Pipeline: that the whole network does not fit into one GPU is why they were chosen.
    """
    wanted = math.ceil(vision.batch_size / group.world)
    if vision.micro_batch_size or group.device.type != "cuda" or vision.parallelism.strategy != Strategy.DDP:
        return vision.micro_batch_size or wanted
    found = fitting(wanted, Trial(vision, task, images, group.device).fits, group)
    if found < wanted:
        say(f"micro-batches of {found} images: {wanted} at once do not fit into the GPU's memory")
    return found


def fitting(wanted: int, fits: Callable[[int], bool], group: Group) -> int:
    """`wanted` images, halved until every process can take them; all get the same. Raises ConfigError if one is too many."""
    size = wanted
    while not all(group.gather(fits(size))):
        if size == 1:
            raise ConfigError(
                "not even one image at a time fits into the memory: lower vision.imageSize, or choose a smaller vision.model"
            )
        size = math.ceil(size / 2)
    return size


class Trial:
    """One forward and backward pass over the first image of `train`, as often as a micro-batch would have images."""

    def __init__(self, vision: Vision, task: Task, images: ImageSet, device: torch.device) -> None:
        self._vision, self._task, self._device = vision, task, device
        self._item = images[SampleRef(0, 0)]

    def fits(self, size: int) -> bool:
        try:
            self._step(size)
        except (
            RuntimeError,
            MemoryError,
        ) as error:  # CUDA's own class is a RuntimeError, the CPU's allocator has words alone
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        return True

    def _step(self, size: int) -> None:
        model = self._task.build_model()
        layout = memory_format(self._vision, model, self._device)
        model = model.to(self._device, memory_format=layout).train()
        kept = [torch.zeros_like(weight) for weight in model.parameters() for _ in range(_COPIES)]
        batch = self._task.collate([self._item] * size).to(self._device, layout)
        with Precision.of(self._vision, self._device).autocast():
            loss = self._task.loss(model, batch, generator=torch.Generator().manual_seed(0))
        loss.backward()
        float(loss)  # waits for the device
        del kept


def is_out_of_memory(error: BaseException) -> bool:
    """Of the device, or of the process."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in _WORDS)
