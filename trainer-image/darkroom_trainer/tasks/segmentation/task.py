"""The `Task` of images with masks."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from darkroom_api.v1alpha1.synthetic import Synthetic
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.data.frame import FILL_LABEL, Letterbox, Views, stacked
from darkroom_trainer.data.place import open_place
from darkroom_trainer.data.split import Shares
from darkroom_trainer.data.synthetic import Blended, renderer
from darkroom_trainer.data.transforms import normalize
from darkroom_trainer.errors import DataError
from darkroom_trainer.stages import Stage
from darkroom_trainer.synthetic.fidelity import Sample
from darkroom_trainer.synthetic.write import BACKGROUND
from darkroom_trainer.tasks.base import Batch, Exchange, ImageSet
from darkroom_trainer.tasks.segmentation import networks
from darkroom_trainer.tasks.segmentation.data import MaskedImages, read_mask_folder, read_voc_masks
from darkroom_trainer.tasks.segmentation.sets import Item, MaskedSet, MaskShowing, SceneMasks
from darkroom_trainer.weights import load_configured

AUXILIARY = 0.5
"""Weight of the auxiliary head's loss, as in torchvision's recipes."""

_LOSS, _COUNT, _COUNTS = 0, 1, 2
"""Totals: sum of losses, images, then the confusion matrix, row by row."""


class Segmentation:
    """The data set is listed once, when first asked for."""

    best_metric = "miou"

    def __init__(self, config: TrainerConfig) -> None:
        self._vision = config.vision
        self._data = open_place(config)
        self._weights_dir = config.weights_dir
        self._letterbox = Letterbox.of(config.vision)
        self._smoothing = float(config.vision.schedule.label_smoothing)

    @cached_property
    def images(self) -> MaskedImages:
        if self._vision.data.format == "Voc":
            return read_voc_masks(self._data)
        split = self._vision.data.split
        if split is None:
            return read_mask_folder(self._data)
        shares = Shares(float(split.train), float(split.val), float(split.test))
        return read_mask_folder(self._data, shares=shares, seed=split.seed)

    def splits(self, *, plain: bool = False) -> Mapping[str, ImageSet]:
        """`train` with its augmentation, `val` and perhaps `test` without; raises DataError."""
        seed = self._vision.seed
        evaluation = MaskShowing(self._letterbox, seed=seed)
        views = Views(self._vision.augmentation, self._letterbox.size)
        training = evaluation if plain else MaskShowing(self._letterbox, views=views, seed=seed)
        splits: dict[str, ImageSet] = {
            name: MaskedSet(pairs, len(self.images.classes), training if name == "train" else evaluation)
            for name, pairs in self.images.splits.items()
        }
        if self._vision.synthetic:
            splits["train"] = Blended(splits["train"], self._scenes(self._vision.synthetic, training))
        return splits

    def _scenes(self, synthetic: Synthetic, showing: MaskShowing) -> SceneMasks:
        size, seed, classes = self._letterbox.size, self._vision.seed, self.images.classes
        if BACKGROUND not in classes:
            raise DataError(
                f"vision.synthetic: classes.txt has no class {BACKGROUND!r}, which is what lies behind the objects of a scene"
            )
        render = renderer(synthetic, classes, size=size, seed=seed, without=(BACKGROUND,))
        return SceneMasks(render, classes.index(BACKGROUND), showing)

    def collate(self, items: Sequence[Item]) -> Batch:
        """Images uint8 [n, 3, size, size], targets uint8 [n, size, size]."""
        return Batch(
            images=stacked([item.pixels for item in items]),
            targets=torch.from_numpy(np.stack([item.labels for item in items])),
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
        """The backbone's last map, averaged over the image; and over the pixels of each class in it."""
        found = model.backbone(self.inputs(batch))  # type: ignore[operator]
        maps = found["out"] if "out" in found else found["high"]
        labels = functional.interpolate(batch.targets[:, None].float(), size=maps.shape[2:])[:, 0]
        images, parts, classes = [], [], []
        for map_, mask, valid in zip(maps, labels, batch.valid, strict=True):
            if valid == 0:
                continue
            images.append(map_.mean(dim=(1, 2)))
            for value in mask.unique().tolist():
                if value != FILL_LABEL:
                    parts.append(map_[:, mask == value].mean(dim=1))
                    classes.append(int(value))
        return Sample.of(images, parts, classes)

    def exported(self, model: nn.Module) -> nn.Module:
        return model

    def stages(self, model: nn.Module) -> Sequence[Stage]:
        return networks.stages_of(model)

    def inputs(self, batch: Batch) -> torch.Tensor:
        """float32 [n, 3, size, size], standardised."""
        return normalize(batch.images, self._letterbox)

    def loss(self, model: nn.Module, batch: Batch, *, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG002
        """Mean cross-entropy over the labelled pixels of each image, with the auxiliary head's share, summed over images."""
        output = model(self.inputs(batch))
        losses = self._cross_entropy(output["out"], batch.targets)
        auxiliary = output.get("aux")
        if auxiliary is not None and auxiliary.requires_grad:  # of a frozen stage there is nothing to teach
            losses = losses + AUXILIARY * self._cross_entropy(auxiliary, batch.targets)
        return (losses * batch.valid).sum()

    def _cross_entropy(self, logits: torch.Tensor, targets: torch.Tensor, *, smooth: bool = True) -> torch.Tensor:
        """float32 [n]; 0 for an image without a labelled pixel. By image, so that micro-batches may be of any size."""
        losses = functional.cross_entropy(
            logits.float(),
            targets.long(),
            ignore_index=FILL_LABEL,
            reduction="none",
            label_smoothing=self._smoothing if smooth else 0.0,
        )
        return losses.sum(dim=(1, 2)) / (targets != FILL_LABEL).sum(dim=(1, 2)).clamp(min=1)

    def new_totals(self, device: torch.device) -> torch.Tensor:
        """float64 [2 + classes * classes]."""
        return torch.zeros(_COUNTS + len(self.images.classes) ** 2, dtype=torch.float64, device=device)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batch: Batch, totals: torch.Tensor) -> None:
        """Count pixels by their class and the one found, at the network's resolution; the loss is plain cross-entropy."""
        logits = model(self.inputs(batch))["out"].float()
        valid, classes = batch.valid.double(), logits.shape[1]
        totals[_LOSS] += (self._cross_entropy(logits, batch.targets, smooth=False) * valid).sum()
        totals[_COUNT] += valid.sum()
        targets, found = batch.targets.long(), logits.argmax(dim=1)
        counted = ((targets != FILL_LABEL) & (valid[:, None, None] > 0)).double()
        cells = _COUNTS + targets.clamp(max=classes - 1) * classes + found
        totals.index_add_(0, cells.flatten(), counted.flatten())

    def merge(self, totals: torch.Tensor, group: Exchange) -> torch.Tensor:
        """Sums over all processes: whole numbers, so exact."""
        return group.all_reduce(totals)

    def metrics(self, totals: torch.Tensor) -> dict[str, float]:
        """Shares of 1; miou is the mean over the classes that occur or were found. Nothing counted gives zeros."""
        totals, classes = totals.cpu(), len(self.images.classes)
        counts = totals[_COUNTS:].view(classes, classes)
        right, union = counts.diag(), counts.sum(dim=0) + counts.sum(dim=1) - counts.diag()
        shares = right[union > 0] / union[union > 0]
        return {
            "miou": float(shares.mean()) if len(shares) else 0.0,
            "pixelAccuracy": float(right.sum() / counts.sum().clamp(min=1)),
            "loss": float(totals[_LOSS]) / max(float(totals[_COUNT]), 1.0),
        }

    def fingerprint(self) -> str:
        """SHA-256 over the classes and the names of each split, in order."""
        digest = sha256("\0".join(self.images.classes).encode())
        for split, pairs in sorted(self.images.splits.items()):
            digest.update(b"\0" + split.encode() + b"\0")
            for index in range(len(pairs)):
                digest.update(pairs.images.raw(index) + b"\0" + pairs.masks.raw(index) + b"\0")
        return digest.hexdigest()

    def pixels_fingerprint(self, split: str) -> str:
        raise NotImplementedError(f"features of {split}: the API has cacheFeatures for Classification alone")

    def describe(self) -> dict[str, Any]:
        """What `export_model` writes beside the weights and `load_model` builds from."""
        return {
            "task": "Segmentation",
            "architecture": self._vision.model.architecture,
            "imageSize": self._vision.image_size,
            "classes": list(self.images.classes),
            "preprocessing": self._letterbox.describe(),
        }
