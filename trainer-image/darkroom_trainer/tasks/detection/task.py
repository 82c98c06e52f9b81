"""The `Task` of images with boxes."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.ops import roi_align

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.data.frame import Letterbox, Views, stacked
from darkroom_trainer.data.place import open_place
from darkroom_trainer.data.synthetic import Blended, renderer
from darkroom_trainer.data.transforms import normalize
from darkroom_trainer.stages import Stage
from darkroom_trainer.synthetic.fidelity import Sample
from darkroom_trainer.tasks.base import Batch, Exchange, ImageSet
from darkroom_trainer.tasks.detection import networks
from darkroom_trainer.tasks.detection.coco import read_coco
from darkroom_trainer.tasks.detection.data import BoxedImages
from darkroom_trainer.tasks.detection.precision import MOST, Judged, mean_average_precision
from darkroom_trainer.tasks.detection.sample import Item, Target
from darkroom_trainer.tasks.detection.sets import BoxedSet, BoxShowing, SceneBoxes
from darkroom_trainer.tasks.detection.voc import read_voc_boxes
from darkroom_trainer.weights import load_configured


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
        if self._vision.data.format == "Voc":
            return read_voc_boxes(self._data)
        return read_coco(self._data, masks=float(self._vision.augmentation.copy_paste) > 0)

    def splits(self, *, plain: bool = False) -> Mapping[str, ImageSet]:
        """`train` with its augmentation, `val` and perhaps `test` without; raises DataError."""
        seed = self._vision.seed
        evaluation = BoxShowing(self._letterbox, seed=seed)
        views = Views(self._vision.augmentation, self._letterbox.size)
        training = evaluation if plain else BoxShowing(self._letterbox, views=views, seed=seed)
        splits: dict[str, ImageSet] = {
            name: BoxedSet(annotations, training if name == "train" else evaluation)
            for name, annotations in self.images.splits.items()
        }
        if synthetic := self._vision.synthetic:
            render = renderer(synthetic, self.images.classes, size=self._letterbox.size, seed=seed)
            splits["train"] = Blended(splits["train"], SceneBoxes(render, training))
        return splits

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

    @torch.no_grad()
    def features(self, model: nn.Module, batch: Batch) -> Sample:
        """The backbone's finest map, averaged over the image; and over each object's box."""
        maps = next(iter(model.backbone(self.inputs(batch)).values()))  # type: ignore[operator]
        readable = [place for place, target in enumerate(batch.targets) if target["target"].readable]
        boxes = [batch.targets[place]["boxes"] for place in readable]
        scale = maps.shape[-1] / batch.images.shape[-1]
        parts = roi_align(maps[readable], boxes, 1, spatial_scale=scale, aligned=True).flatten(1)
        classes = [label for place in readable for label in batch.targets[place]["labels"].tolist()]
        return Sample.of(maps[readable].mean(dim=(2, 3)), parts, classes)

    def exported(self, model: nn.Module) -> nn.Module:
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
