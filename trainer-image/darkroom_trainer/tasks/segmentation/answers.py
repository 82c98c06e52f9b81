"""A segmentation network in use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from darkroom_trainer.data.frame import Frame
from darkroom_trainer.tasks.canvas import OnCanvas
from darkroom_trainer.tasks.drawing import color_of, overlay
from darkroom_trainer.tasks.segmentation import networks


@dataclass(frozen=True)
class LabelMap:
    """labels: uint8 [H, W], the class of each pixel of the image."""

    labels: np.ndarray
    classes: Sequence[str]

    def shares(self) -> list[tuple[str, float]]:
        """Share of the image of each class that was found, the largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes)) / self.labels.size
        order = sorted(np.flatnonzero(counts), key=lambda value: -counts[value])
        return [(self.classes[value], float(counts[value])) for value in order]

    def rows(self) -> list[tuple[str, ...]]:
        return [(name, f"{share:.4f}") for name, share in self.shares()]

    def as_json(self) -> list[dict[str, Any]]:
        return [{"class": name, "share": share} for name, share in self.shares()]

    def draw(self, image: Image.Image) -> dict[str, Image.Image]:
        """The image under the classes' colours, and the mask itself, as MaskFolder has it."""
        mask = Image.fromarray(self.labels).convert("P")
        mask.putdata(self.labels.ravel())  # the values themselves, where convert() chose a palette of greys
        mask.putpalette([channel for value in range(256) for channel in color_of(value)])
        return {
            "": overlay(image, [(self.labels == value, value) for value in range(1, len(self.classes))]),
            "-mask": mask,
        }


class Segmenter(OnCanvas):
    """An exported segmentation network."""

    columns = ("class", "share")

    def build_model(self) -> nn.Module:
        return networks.build(self._architecture, classes=len(self._classes))

    def answers(
        self,
        model: nn.Module,
        prepared: Sequence[tuple[np.ndarray, Frame]],
        device: torch.device,
        *,
        top: int,  # noqa: ARG002
        least: float,  # noqa: ARG002
    ) -> list[LabelMap]:
        found = model(self._inputs(prepared, device))["out"].argmax(dim=1).byte().cpu().numpy()
        return [
            LabelMap(frame.labels_back(labels), self._classes)
            for labels, (_, frame) in zip(found, prepared, strict=True)
        ]
