"""Image classification: one class per image, cross-entropy, accuracy."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from darkroom_api.v1alpha1.synthetic import Synthetic
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.data import dataset
from darkroom_trainer.data.folder import Folder, read_folder
from darkroom_trainer.data.mix import Mixed, mix
from darkroom_trainer.data.place import files_of, open_place
from darkroom_trainer.data.split import Shares
from darkroom_trainer.data.synthetic import Blended, Endless, fractal_classes, renderer
from darkroom_trainer.data.transforms import PREPROCESSING, Evaluation, Preprocessing, Training, Transform, normalize
from darkroom_trainer.models import build_model, head_keys, spare_keys
from darkroom_trainer.stages import Stage, stages_of
from darkroom_trainer.synthetic.fidelity import Sample
from darkroom_trainer.tasks.base import Batch, Exchange, ImageSet, Verdicts
from darkroom_trainer.weights import load_configured

AUXILIARY = {"aux_logits": 0.4, "aux_logits1": 0.3, "aux_logits2": 0.3}
"""Weights of the auxiliary losses of Inception v3 (Szegedy et al., 2015) and GoogLeNet (2014), by output's name."""

_LOSS, _TOP1, _TOP5, _COUNT = range(4)
_PER_CLASS = 4
"""Totals: four sums, then correct answers of each class, then images of each class."""


class Classification:
    """The `Task` of images in class folders; the folder is read once, when first asked for."""

    best_metric = "top1"

    def __init__(self, config: TrainerConfig) -> None:
        self._vision = config.vision
        self._data = open_place(config)
        self._weights_dir = config.weights_dir
        self._preprocessing = Preprocessing.of(config.vision)
        self._augmentation = config.vision.augmentation
        self._smoothing = float(config.vision.schedule.label_smoothing)
        self._fractals = fractal_classes(config.vision.synthetic)

    @cached_property
    def folder(self) -> Folder:
        split = self._vision.data.split
        if split is None:
            return read_folder(self._data)
        shares = Shares(float(split.train), float(split.val), float(split.test))
        return read_folder(self._data, shares=shares, seed=split.seed)

    def splits(self, *, plain: bool = False) -> Mapping[str, ImageSet]:
        """`train` with its augmentation, `val` and perhaps `test` without; raises DataError."""
        evaluation = Evaluation(self._preprocessing)
        training = evaluation if plain else Training(self._augmentation, self._preprocessing)
        splits: dict[str, ImageSet] = {
            name: dataset.FolderImages(
                listing,
                training if name == "train" else evaluation,
                size=self._vision.image_size,
                seed=self._vision.seed,
            )
            for name, listing in self.folder.splits.items()
        }
        if self._vision.synthetic:
            splits["train"] = Blended(splits["train"], self._synthetic(self._vision.synthetic, training))
        return splits

    def _synthetic(self, synthetic: Synthetic, transform: Transform) -> Endless:
        """At the size from which evaluation cuts its centre: objects are as large as in a photograph that is resized."""
        seed, size = self._vision.seed, self._preprocessing.resize
        if self._fractals:
            first = len(self.folder.classes)
            return dataset.FractalImages(self._fractals, transform, first=first, size=size, seed=seed)
        render = renderer(synthetic, self.folder.classes, size=size, seed=seed, alone=True)
        return dataset.SceneImages(render, transform, seed=seed)

    def collate(self, items: Sequence[dataset.Item]) -> Batch:
        """uint8 images: a quarter of the bytes to the device, where they are normalised."""
        return dataset.collate(items)

    def build_model(self) -> nn.Module:
        """The network on the CPU from the seed, then from the weights' file if there is one; raises ConfigError.

        Its head answers for the data set's classes, and behind them for those of fractals.
        """
        architecture, size = self._vision.model.architecture, self._vision.image_size
        model = self._network(len(self.folder.classes) + self._fractals)
        load_configured(
            model,
            self._vision.model,
            self._weights_dir,
            head=head_keys(architecture, size),
            spare=spare_keys(architecture, size),
        )
        return model

    def _network(self, classes: int) -> nn.Module:
        model, size = self._vision.model, self._vision.image_size
        return build_model(
            model.architecture, classes=classes, image_size=size, stem=model.stem, seed=self._vision.seed
        )

    @torch.no_grad()
    def features(self, model: nn.Module, batch: Batch) -> Sample:
        """What the head is given, averaged over places; the only part of an image is all of it."""
        rows = self.inputs(batch)
        for stage in self.stages(model)[:-1]:
            rows = stage(rows)
        rows = rows.flatten(2).mean(dim=2) if rows.ndim > 2 else rows
        valid = batch.valid > 0
        rows = rows[valid].double().cpu()
        return Sample(rows, rows, batch.targets[valid].cpu())

    def exported(self, model: nn.Module) -> nn.Module:
        """The head as it is for the data set's classes alone."""
        if not self._fractals:
            return model
        head, classes = head_keys(self._vision.model.architecture, self._vision.image_size), len(self.folder.classes)
        own = self._network(classes)
        own.load_state_dict({name: t[:classes] if name in head else t for name, t in model.state_dict().items()})
        return own

    def stages(self, model: nn.Module) -> Sequence[Stage]:
        return stages_of(self._vision.model.architecture, model)

    def inputs(self, batch: Batch) -> torch.Tensor:
        """float32 [n, 3, size, size], standardised."""
        return batch.images if batch.encoded else normalize(batch.images, self._preprocessing)

    def loss(self, model: nn.Module, batch: Batch, *, generator: torch.Generator) -> torch.Tensor:
        """Cross-entropy, smoothed, mixed and with auxiliary heads as configured, summed over valid samples."""
        mixed = mix(
            self.inputs(batch),
            batch.targets,
            batch.valid,
            mixup=float(self._augmentation.mixup),
            cutmix=float(self._augmentation.cutmix),
            generator=generator,
        )
        output = model(mixed.images)
        if isinstance(output, torch.Tensor):
            return (self._cross_entropy(output, mixed) * batch.valid).sum()
        total = self._cross_entropy(output.logits, mixed)
        for name, weight in AUXILIARY.items():
            logits = getattr(output, name, None)
            if logits is not None and logits.requires_grad:  # of frozen stages there is nothing to teach
                total = total + weight * self._cross_entropy(logits, mixed)
        return (total * batch.valid).sum()

    def _cross_entropy(self, logits: torch.Tensor, mixed: Mixed) -> torch.Tensor:
        """Loss of each sample, float32 [n]."""

        def of(targets: torch.Tensor) -> torch.Tensor:
            if not self._fractals:
                return self._smoothed(logits, targets)
            real, own = logits[:, : -self._fractals], logits[:, -self._fractals :]
            among = self._smoothed(real, targets.clamp(max=real.shape[1] - 1))
            beyond = self._smoothed(own, (targets - real.shape[1]).clamp(min=0))
            return torch.where(targets < real.shape[1], among, beyond)

        if mixed.share == 1:
            return of(mixed.targets)
        return mixed.share * of(mixed.targets) + (1 - mixed.share) * of(mixed.others)

    def _smoothed(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=self._smoothing)

    def new_totals(self, device: torch.device) -> torch.Tensor:
        """float64 [4 + 2 classes]."""
        return torch.zeros(_PER_CLASS + 2 * len(self.folder.classes), dtype=torch.float64, device=device)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, batch: Batch, totals: torch.Tensor) -> Verdicts:
        """Count the batch's valid samples; the loss is plain cross-entropy, comparable between recipes."""
        classes = len(self.folder.classes)
        logits = model(self.inputs(batch)).float()[:, :classes]
        valid, targets = batch.valid.double(), batch.targets
        losses = functional.cross_entropy(logits, targets, reduction="none")
        ranked = logits.topk(min(5, classes)).indices
        hits = ranked == targets[:, None]
        first = hits[:, 0] * valid
        totals[_LOSS] += (losses * valid).sum()
        totals[_TOP1] += first.sum()
        totals[_TOP5] += (hits.any(dim=1) * valid).sum()
        totals[_COUNT] += valid.sum()
        totals.index_add_(0, _PER_CLASS + targets, first)
        totals.index_add_(0, _PER_CLASS + classes + targets, valid)
        return Verdicts(losses, targets, ranked[:, 0], logits.softmax(dim=1).amax(dim=1))

    def merge(self, totals: torch.Tensor, group: Exchange) -> torch.Tensor:
        """Sums over all processes."""
        return group.all_reduce(totals)

    def metrics(self, totals: torch.Tensor) -> dict[str, float]:
        """Shares of 1; macroTop1 is the mean over the classes that occur. Nothing counted gives zeros."""
        totals = totals.cpu()
        count = max(float(totals[_COUNT]), 1.0)
        correct, images = totals[_PER_CLASS:].view(2, -1)
        occurs = images > 0
        per_class = correct[occurs] / images[occurs]
        metrics = {
            "top1": float(totals[_TOP1]) / count,
            "loss": float(totals[_LOSS]) / count,
            "macroTop1": float(per_class.mean()) if len(per_class) else 0.0,
        }
        if len(images) > 5:
            metrics["top5"] = float(totals[_TOP5]) / count
        return metrics

    def fingerprint(self) -> str:
        """SHA-256 over the classes and the names of each split, in order."""
        digest = sha256()
        for name in self.folder.classes:
            digest.update(name.encode() + b"\0")
        for split, listing in sorted(self.folder.splits.items()):
            digest.update(b"\0" + split.encode() + b"\0")
            for index in range(len(listing)):
                digest.update(listing.names.raw(index) + b"\0")
        return digest.hexdigest()

    def pixels_fingerprint(self, split: str) -> str:
        """Names, sizes and times of change of the split's files; preprocessing; and augmentation and seed of `train`."""
        digest, listing = sha256(), self.folder.splits[split]
        recipe = {"preprocessing": self._preprocessing.describe()}
        if split == "train":
            recipe |= {"augmentation": self._augmentation.to_wire(), "seed": self._vision.seed}
        digest.update(json.dumps(recipe, sort_keys=True).encode())
        files = files_of(listing.root, listing.names)
        for index in range(len(listing)):
            try:
                stamp = files.stamp(index)
            except OSError:  # the loader tells of it
                stamp = b"-"
            digest.update(listing.names.raw(index) + b"\0" + stamp + b"\0")
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What `export_model` writes beside the weights and `load_model` builds from."""
        return {
            "task": "Classification",
            "architecture": self._vision.model.architecture,
            "stem": self._vision.model.stem,
            "imageSize": self._vision.image_size,
            "classes": list(self.folder.classes),
            "preprocessing": self._preprocessing.describe(),
        }


@dataclass(frozen=True)
class Ranking:
    """Classes of one image with their probabilities, most likely first."""

    classes: tuple[tuple[str, float], ...]

    def rows(self) -> list[tuple[str, ...]]:
        return [(name, f"{probability:.4f}") for name, probability in self.classes]

    def as_json(self) -> list[dict[str, Any]]:
        return [{"class": name, "probability": probability} for name, probability in self.classes]

    def draw(self, image: Image.Image) -> dict[str, Image.Image]:  # noqa: ARG002
        return {}


class Classifier:
    """An exported classification network."""

    needed = ("architecture", "stem", "imageSize", "classes", *(f"preprocessing.{key}" for key in PREPROCESSING))
    columns = ("class", "probability")

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._description = description
        self._classes: list[str] = description["classes"]
        self._preprocessing = Preprocessing.read(description["preprocessing"])
        self._transform = Evaluation(self._preprocessing)
        self.at_least = self._transform.at_least

    def build_model(self) -> nn.Module:
        return build_model(
            self._description["architecture"],
            classes=len(self._classes),
            image_size=self._description["imageSize"],
            stem=self._description["stem"],
        )

    def prepare(self, image: Image.Image) -> np.ndarray:
        """uint8 [size, size, 3]."""
        return self._transform(image)

    def answers(
        self,
        model: nn.Module,
        prepared: Sequence[np.ndarray],
        device: torch.device,
        *,
        top: int,
        least: float,  # noqa: ARG002
    ) -> list[Ranking]:
        images = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2).contiguous().to(device)
        probabilities = model(normalize(images, self._preprocessing)).float().softmax(dim=1).cpu()
        values, indices = probabilities.topk(min(top, len(self._classes)))
        return [
            Ranking(tuple((self._classes[index], value) for value, index in zip(row, order, strict=True)))
            for row, order in zip(values.tolist(), indices.tolist(), strict=True)
        ]
