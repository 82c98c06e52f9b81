"""A detector in use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from darkroom_trainer.data.frame import Frame
from darkroom_trainer.tasks.canvas import OnCanvas
from darkroom_trainer.tasks.detection import networks
from darkroom_trainer.tasks.drawing import boxed


@dataclass(frozen=True)
class FoundBox:
    """box: left, top, right, bottom in the image's pixels; label: from 0."""

    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Boxes:
    """What was found in one image, likeliest first."""

    found: tuple[FoundBox, ...]

    def rows(self) -> list[tuple[str, ...]]:
        return [(f.name, f"{f.score:.4f}", *(f"{edge:.1f}" for edge in f.box)) for f in self.found]

    def as_json(self) -> list[dict[str, Any]]:
        return [{"class": f.name, "score": f.score, "box": list(f.box)} for f in self.found]

    def draw(self, image: Image.Image) -> dict[str, Image.Image]:
        """The image with a frame around each object."""
        return {"": boxed(image, ((f.box, f.label + 1, f"{f.name} {f.score:.2f}") for f in self.found))}


class Detector(OnCanvas):
    """An exported detector."""

    columns = ("class", "score", "left", "top", "right", "bottom")

    def build_model(self) -> nn.Module:
        return networks.build(self._architecture, classes=len(self._classes))

    def answers(
        self,
        model: nn.Module,
        prepared: Sequence[tuple[np.ndarray, Frame]],
        device: torch.device,
        *,
        top: int,  # noqa: ARG002
        least: float,
    ) -> list[Boxes]:
        answers = model(self._inputs(prepared, device))
        return [self._boxes(answer, frame, least) for answer, (_, frame) in zip(answers, prepared, strict=True)]

    def _boxes(self, answer: Mapping[str, torch.Tensor], frame: Frame, least: float) -> Boxes:
        boxes = frame.boxes_back(answer["boxes"].float().cpu().numpy()).tolist()
        labels = (answer["labels"] - networks.BACKGROUND).tolist()
        found = (
            FoundBox(label, self._classes[label], score, tuple(box))
            for box, label, score in zip(boxes, labels, answer["scores"].tolist(), strict=True)
        )
        return Boxes(tuple(box for box in found if box.score >= least))
