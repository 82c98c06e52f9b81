"""What the training loop asks of a task: data, network, loss, metric. The loop knows nothing else of vision."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import nn

from darkroom_trainer.stages import Stage
from darkroom_trainer.synthetic.fidelity import Sample


@dataclass(frozen=True)
class SampleRef:
    """One draw of a sample: the same (seed, epoch, index) gives the same pixels on any process.

    synthetic: `index` is the number of a synthetic image; there is no end to them, and `epoch` is 0.
    """

    index: int
    epoch: int
    strength: float = 1.0
    """Of the augmentation, 0 to 1."""
    synthetic: bool = False


@dataclass
class Batch:
    """What the loader gives the loop.

    images: float32 or uint8, [n, 3, H, W]; targets: whatever the task's loss reads, tensors in lists and dicts; valid:
    float32 [n], 0 where the file could not be read and a blank stands in; corrupt: names of those files; encoded:
    `images` are what the network's frozen stages made of them.
    """

    images: torch.Tensor
    targets: Any
    valid: torch.Tensor
    corrupt: list[str]
    encoded: bool = False

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """Copy to the device without waiting for it."""
        layout = memory_format if self.images.ndim == 4 else torch.preserve_format
        return replace(
            self,
            images=self.images.to(device, non_blocking=True, memory_format=layout),
            targets=each_tensor(self.targets, lambda tensor: tensor.to(device, non_blocking=True)),
            valid=self.valid.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """Called by the loader when there is a GPU."""
        targets = each_tensor(self.targets, torch.Tensor.pin_memory)
        return replace(self, images=self.images.pin_memory(), targets=targets, valid=self.valid.pin_memory())


def each_tensor(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same lists and dicts with every tensor in them changed; anything else stays."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: each_tensor(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [each_tensor(inner, change) for inner in value]
    return value


@dataclass(frozen=True)
class Verdicts:
    """What a network says of each sample of a batch, on its device: loss and confidence (the probability of `found`)
    float [n], the numbers of the right class and of the one found int64 [n]."""

    loss: torch.Tensor
    truth: torch.Tensor
    found: torch.Tensor
    confidence: torch.Tensor


class ImageSet(Protocol):
    """A split: map-style, indexed by SampleRef."""

    def __len__(self) -> int: ...
    def __getitem__(self, ref: SampleRef) -> Any: ...


class NamedImages(ImageSet, Protocol):
    """A split whose items have `pixels`, uint8 [H, W, 3]."""

    def name(self, index: int) -> str:
        """What a person finds the sample by."""


class Exchange(Protocol):
    """What a task needs of the group of processes."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor: ...
    def gather(self, value: Any) -> list[Any]: ...


class Task(Protocol):
    """Everything that differs between classification, segmentation and detection while they are learned."""

    best_metric: str
    """The metric that chooses the best epoch, higher is better, without the split's prefix, as `top1`."""

    def splits(self, *, plain: bool = False) -> Mapping[str, ImageSet]:
        """`train` and `val`, and `test` where there is one; DataError names what is missing or empty.

        plain: `train`, and what is synthetic in it, are shown as in evaluation.
        """

    def collate(self, items: Sequence[Any]) -> Batch:
        """Items of an ImageSet to a batch; runs in loader workers."""

    def build_model(self) -> nn.Module:
        """The network on the CPU, weights loaded; ConfigError names what does not fit."""

    def features(self, model: nn.Module, batch: Batch) -> Sample:
        """What the network, in evaluation mode, makes of the batch's valid images and of their labelled parts, on the CPU."""

    def exported(self, model: nn.Module) -> nn.Module:
        """The trained network without what was there for the training alone."""

    def stages(self, model: nn.Module) -> Sequence[Stage]:
        """The network's stages, from the image to the head: what `spec.vision.transfer` freezes and opens."""

    def inputs(self, batch: Batch) -> torch.Tensor:
        """What the first stage takes; of an encoded batch, what the first open stage takes."""

    def loss(self, model: nn.Module, batch: Batch, *, generator: torch.Generator) -> torch.Tensor:
        """Training loss SUMMED over the batch's valid samples; `generator` (CPU) draws MixUp and the like."""

    def new_totals(self, device: torch.device) -> Any:
        """What `evaluate` adds to: empty."""

    def evaluate(self, model: nn.Module, batch: Batch, totals: Any) -> Verdicts | None:
        """Add what there is to say of the batch's valid samples to `totals`. Verdicts, where a sample has one class and
        the splits are NamedImages; else None."""

    def merge(self, totals: Any, group: Exchange) -> Any:
        """The totals of all processes, exact and on each of them; every process calls it at the same place."""

    def metrics(self, totals: Any) -> dict[str, float]:
        """Merged totals of a whole split to metrics by name, as {"top1": 0.97, "loss": 0.1}; asked on rank 0 alone."""

    def fingerprint(self) -> str:
        """SHA-256 over classes and the names in each split: what a resumed run must find unchanged."""

    def pixels_fingerprint(self, split: str) -> str:
        """SHA-256 over a split's files and everything that turns them into the network's input: for cached features."""

    def describe(self) -> dict[str, Any]:
        """What a user of the exported model must know: task, classes, preprocessing; JSON."""


class Answer(Protocol):
    """What a model says of one image, in the three forms of `darkroom-trainer predict`."""

    def rows(self) -> list[tuple[str, ...]]:
        """Lines of the table, without the file's name."""

    def as_json(self) -> list[dict[str, Any]]:
        """The same for a program."""

    def draw(self, image: Image.Image) -> dict[str, Image.Image]:
        """Pictures of the answer, by what comes behind the file's stem; empty where there is nothing to see."""


class Exported(Protocol):
    """A task of a model that is in use: made from `Task.describe()` alone."""

    needed: tuple[str, ...]
    """What the description must have besides its task, as `preprocessing.mean`."""

    columns: tuple[str, ...]
    """Heads of the table's columns."""

    at_least: int
    """Pixels per side below which a JPEG must not be decoded; 0: full size."""

    def __init__(self, description: Mapping[str, Any]) -> None: ...

    def build_model(self) -> nn.Module:
        """The network on the CPU, before its weights."""

    def prepare(self, image: Image.Image) -> Any:
        """An RGB image as in evaluation."""

    def answers(
        self, model: nn.Module, prepared: Sequence[Any], device: torch.device, *, top: int, least: float
    ) -> Sequence[Answer]:
        """One for each. Of a classification the `top` likeliest classes, of a detection what has a score of `least`."""
