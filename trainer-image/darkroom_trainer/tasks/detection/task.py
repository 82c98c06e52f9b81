"""The `Task` of images with boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.data.dataset import open_image, sample_random
from darkroom_trainer.data.decode import full_size
from darkroom_trainer.data.frame import Frame, Letterbox, Views, stacked, whole
from darkroom_trainer.data.names import printable
from darkroom_trainer.data.place import files_of, open_place
from darkroom_trainer.data.transforms import erase, normalize
from darkroom_trainer.errors import DataError
from darkroom_trainer.stages import Stage
from darkroom_trainer.tasks.base import Batch, Exchange, ImageSet, SampleRef
from darkroom_trainer.tasks.detection import networks
from darkroom_trainer.tasks.detection.coco import read_coco
from darkroom_trainer.tasks.detection.data import Annotated, Annotations, BoxedImages
from darkroom_trainer.tasks.detection.precision import MOST, Judged, mean_average_precision
from darkroom_trainer.tasks.detection.voc import read_voc_boxes
from darkroom_trainer.weights import load_configured

_TRIES = 20
_LEAST_SIDE = 1.0
"""Pixels of the canvas below which a box is nothing to learn from."""


@dataclass(frozen=True)
class Target:
    """What is in an image. boxes: float32 [k, 4] on the canvas, without crowds; labels: int64 [k], from 0.

    index: the image's place in its split; truth: all that is said of it; frame: where it lies on the canvas; readable:
    False where a blank stands in.
    """

    index: int
    boxes: np.ndarray
    labels: np.ndarray
    truth: Annotated
    frame: Frame
    readable: bool = True


@dataclass(frozen=True)
class Item:
    """One sample: uint8 [size, size, 3] and its target; `corrupt` is the file's name where a blank stands in."""

    pixels: np.ndarray
    target: Target
    corrupt: str | None = None


class BoxedSet:
    """Annotations whose images are decoded and transformed when asked for; pixels and boxes follow from the key alone.

    views: what training draws; None: all of each image.
    """

    def __init__(
        self, annotations: Annotations, letterbox: Letterbox, *, views: Views | None, erasing: float, seed: int
    ) -> None:
        self._annotations, self._letterbox, self._views = annotations, letterbox, views
        self._erasing, self._seed = erasing, seed
        self._files = files_of(annotations.root, annotations.names)

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, ref: SampleRef) -> Item:
        truth = self._annotations.items[ref.index]
        image = open_image(self._files, ref.index)
        size = self._letterbox.size
        if isinstance(image, str):
            none = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)
            target = Target(ref.index, *none, truth, whole(truth.width, truth.height, size), readable=False)
            return Item(np.full((size, size, 3), 128, dtype=np.uint8), target, corrupt=image)
        width, height = full_size(image)
        if (width, height) != (truth.width, truth.height):
            raise DataError(
                f"{printable(self._files.path(ref.index))} has {width}x{height} pixels, its annotation says "
                f"{truth.width}x{truth.height}: its boxes would lie elsewhere"
            )
        random = sample_random(self._seed, ref)
        frame, boxes, labels = self._framed(truth, random, ref.strength)
        pixels = frame.picture(image, self._letterbox.fill)
        if self._views and random.random() < ref.strength * self._erasing:
            erase(pixels, np.array(self._letterbox.fill, dtype=np.uint8), random)
        return Item(pixels, Target(ref.index, boxes, labels, truth, frame))

    def _framed(self, truth: Annotated, random: Random, strength: float) -> tuple[Frame, np.ndarray, np.ndarray]:
        """A view in which at least one of the image's boxes is left, if one can be found; else the whole image."""
        for _ in range(_TRIES if self._views else 0):
            frame = self._views.draw(truth.width, truth.height, random, strength)  # type: ignore[union-attr]
            boxes, labels = kept(truth, frame)
            if len(boxes) or not len(truth.boxes):
                return frame, boxes, labels
        frame = whole(truth.width, truth.height, self._letterbox.size)
        return frame, *kept(truth, frame)


def kept(truth: Annotated, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and labels of the objects whose middle the frame shows, cut off at its border; crowds are none."""
    boxes = frame.boxes(truth.boxes)
    left, top, right, bottom = frame.target
    if frame.mirrored:
        left, right = frame.size - right, frame.size - left
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    shown = (middle >= (left, top)).all(axis=1) & (middle <= (right, bottom)).all(axis=1)
    boxes = boxes.clip(np.float32([left, top, left, top]), np.float32([right, bottom, right, bottom]))
    sides = boxes[:, 2:] - boxes[:, :2]
    good = shown & (sides >= _LEAST_SIDE).all(axis=1) & ~truth.crowd
    return boxes[good], truth.labels[good]


class Detection:
    """The annotations are read and checked once, when first asked for."""

    best_metric = "map"

    def __init__(self, config: TrainerConfig) -> None:
        self._vision = config.vision
        self._data = open_place(config)
        self._weights_dir = config.weights_dir
        self._letterbox = Letterbox.of(config.vision)

    @cached_property
    def images(self) -> BoxedImages:
        return read_voc_boxes(self._data) if self._vision.data.format == "Voc" else read_coco(self._data)

    def splits(self) -> Mapping[str, ImageSet]:
        """`train` with its augmentation, `val` and perhaps `test` without; raises DataError."""
        augmentation = self._vision.augmentation
        return {
            name: BoxedSet(
                annotations,
                self._letterbox,
                views=Views(augmentation, self._letterbox.size) if name == "train" else None,
                erasing=float(augmentation.erasing),
                seed=self._vision.seed,
            )
            for name, annotations in self.images.splits.items()
        }

    def collate(self, items: Sequence[Item]) -> Batch:
        """Images uint8 [n, 3, size, size]; targets: a list with boxes and labels (from 1) as tensors, and the Target."""
        targets = [
            {
                "boxes": torch.from_numpy(item.target.boxes),
                "labels": torch.from_numpy(item.target.labels) + networks.BACKGROUND,
                "target": item.target,
            }
            for item in items
        ]
        return Batch(
            images=stacked([item.pixels for item in items]),
            targets=targets,
            valid=torch.tensor([0.0 if item.corrupt else 1.0 for item in items]),
            corrupt=[item.corrupt for item in items if item.corrupt],
        )

    def build_model(self) -> nn.Module:
        """The network on the CPU from the seed, then from the weights' file if there is one; raises ConfigError."""
        architecture = self._vision.model.architecture
        model = networks.build(architecture, classes=len(self.images.classes), seed=self._vision.seed)
        load_configured(
            model,
            self._vision.model,
            self._weights_dir,
            head=networks.head_keys(architecture),
            backbone=networks.backbone_of(architecture),
        )
        return model

    def stages(self, model: nn.Module) -> Sequence[Stage]:
        return networks.stages_of(self._vision.model.architecture, model)

    def inputs(self, batch: Batch) -> torch.Tensor:
        """float32 [n, 3, size, size], standardised."""
        return normalize(batch.images, self._letterbox)

    def loss(self, model: nn.Module, batch: Batch, *, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG002
        """The network's losses, which are means over a micro-batch, times its valid images."""
        readable = [place for place, target in enumerate(batch.targets) if target["target"].readable]
        if not readable:
            return sum((p.sum() * 0 for p in model.parameters() if p.requires_grad), torch.zeros(()))  # type: ignore[return-value]
        images, targets = self.inputs(batch), [batch.targets[place] for place in readable]
        if len(readable) < len(batch.targets):
            images = images[readable]
        losses = model(images, [{"boxes": target["boxes"], "labels": target["labels"]} for target in targets])
        return torch.stack(list(losses.values())).sum() * len(readable)

    def new_totals(self, device: torch.device) -> list[Judged]:  # noqa: ARG002
        """Precision is a matter of the whole split: what was found is kept."""
        return []

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batch: Batch, totals: list[Judged]) -> None:
        """Keep the likeliest boxes of each valid image, in its own pixels."""
        for answer, entry in zip(model(self.inputs(batch)), batch.targets, strict=True):
            target: Target = entry["target"]
            if target.readable:
                boxes, scores, labels = (
                    answer[key][:MOST].float().cpu().numpy() for key in ("boxes", "scores", "labels")
                )
                own = target.frame.boxes_back(boxes).astype(np.float32)
                totals.append(Judged(target.index, target.truth, own, scores, labels.astype(int) - networks.BACKGROUND))

    def merge(self, totals: list[Judged], group: Exchange) -> list[Judged]:
        """Of all processes, in the split's order: the same for any number of them."""
        return sorted((image for part in group.gather(totals) for image in part), key=lambda image: image.index)

    def metrics(self, totals: list[Judged]) -> dict[str, float]:
        """Shares of 1."""
        return mean_average_precision(totals, self.images.classes)

    def fingerprint(self) -> str:
        """SHA-256 over the classes, and names and boxes in each split."""
        digest = sha256("\0".join(self.images.classes).encode())
        for split, annotations in sorted(self.images.splits.items()):
            digest.update(b"\0" + split.encode() + b"\0")
            for index, item in enumerate(annotations.items):
                digest.update(annotations.names.raw(index) + b"\0")
                for part in (item.boxes, item.labels, item.crowd):
                    digest.update(part.tobytes())
        return digest.hexdigest()

    def pixels_fingerprint(self, split: str) -> str:
        raise NotImplementedError(f"features of {split}: the API has cacheFeatures for Classification alone")

    def describe(self) -> dict[str, Any]:
        """What `export_model` writes beside the weights and `load_model` builds from."""
        return {
            "task": "Detection",
            "architecture": self._vision.model.architecture,
            "imageSize": self._vision.image_size,
            "classes": list(self.images.classes),
            "preprocessing": self._letterbox.describe(),
        }
