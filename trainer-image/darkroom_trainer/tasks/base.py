"""What the training loop asks of a task: data, network, loss, metric. The loop knows nothing else of vision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from darkroom_trainer.stages import Stage


@dataclass(frozen=True)
class SampleRef:
    """One draw of a sample: the same (seed, epoch, index) gives the same pixels on any process."""

    index: int
    epoch: int


@dataclass
class Batch:
    """What the loader gives the loop.

    images: float32 or uint8, [n, 3, H, W]; targets: whatever the task's loss reads; valid: float32 [n], 0 where the file
    could not be read and a blank stands in; corrupt: names of those files; encoded: `images` are what the network's
    frozen stages made of them.
    """

    images: torch.Tensor
    targets: torch.Tensor
    valid: torch.Tensor
    corrupt: list[str]
    encoded: bool = False

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """Copy to the device without waiting for it."""
        layout = memory_format if self.images.ndim == 4 else torch.preserve_format
        return replace(
            self,
            images=self.images.to(device, non_blocking=True, memory_format=layout),
            targets=self.targets.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """Called by the loader when there is a GPU."""
        images, targets, valid = self.images.pin_memory(), self.targets.pin_memory(), self.valid.pin_memory()
        return replace(self, images=images, targets=targets, valid=valid)


class ImageSet(Protocol):
    """A split: map-style, indexed by SampleRef."""

    def __len__(self) -> int: ...
    def __getitem__(self, ref: SampleRef) -> Any: ...


class Task(Protocol):
    """Everything that differs between classification, segmentation and detection."""

    best_metric: str
    """The metric that chooses the best epoch, higher is better, without the split's prefix, as `top1`."""

    def splits(self) -> Mapping[str, ImageSet]:
        """`train` and `val`, and `test` where there is one; DataError names what is missing or empty."""

    def collate(self, items: Sequence[Any]) -> Batch:
        """Items of an ImageSet to a batch; runs in loader workers."""

    def build_model(self) -> nn.Module:
        """The network on the CPU, weights loaded; ConfigError names what does not fit."""

    def stages(self, model: nn.Module) -> Sequence[Stage]:
        """The network's stages, from the image to the head: what `spec.vision.transfer` freezes and opens."""

    def inputs(self, batch: Batch) -> torch.Tensor:
        """What the first stage takes; of an encoded batch, what the first open stage takes."""

    def loss(self, model: nn.Module, batch: Batch, *, generator: torch.Generator) -> torch.Tensor:
        """Training loss SUMMED over the batch's valid samples; `generator` (CPU) draws MixUp and the like."""

    def new_totals(self, device: torch.device) -> torch.Tensor:
        """A float64 vector of zeros that `evaluate` adds to and that ranks can sum."""

    def evaluate(self, model: nn.Module, batch: Batch, totals: torch.Tensor) -> None:
        """Add the batch's counts to `totals`, without a device synchronisation."""

    def metrics(self, totals: torch.Tensor) -> dict[str, float]:
        """Totals over a whole split to metrics by name, as {"top1": 0.97, "loss": 0.1}."""

    def fingerprint(self) -> str:
        """SHA-256 over classes and the names in each split: what a resumed run must find unchanged."""

    def pixels_fingerprint(self, split: str) -> str:
        """SHA-256 over a split's files and everything that turns them into the network's input: for cached features."""

    def describe(self) -> dict[str, Any]:
        """What a user of the exported model must know: task, classes, preprocessing; JSON."""
