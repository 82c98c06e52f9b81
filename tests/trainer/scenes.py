"""Rendered data sets that a network learns in a minute, and configurations for them."""

from pathlib import Path
from typing import Any

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.synthetic.scene import Recipe
from tests.trainer.images import vision_config

CLASSES = ("circle", "star")


def recipe(size: int, *, radius: tuple[float, float], **changes: Any) -> Recipe:
    """Two shapes in clear light."""
    fields: dict[str, Any] = {"classes": CLASSES, "objects": (1, 2), "noise": (0, 8), "blur": (0, 0.6), **changes}
    return Recipe(size=(size, size), radius=radius, **fields)


LARGE = recipe(64, radius=(0.22, 0.4))
"""For masks: the coarse maps of LR-ASPP still see an outline."""

SMALL = recipe(128, radius=(0.13, 0.2))
"""For boxes: of the size of SSDlite's finest map."""

ADAMW = {"name": "AdamW", "learningRate": "0.004", "weightDecay": "0.01", "clipNorm": "5"}


def segmentation_config(folder: Path, run: Path, **vision: Any) -> TrainerConfig:
    """LR-ASPP for 64-pixel images from a MaskFolder."""
    fields: dict[str, Any] = {
        "task": "Segmentation",
        "data": {"claim": "scenes", "format": "MaskFolder"},
        "model": {"architecture": "lraspp_mobilenet_v3_large"},
        "imageSize": 64,
        "batchSize": 8,
        "augmentation": {"crop": "Center"},
        "optimizer": ADAMW,
        "workers": 0,
        **vision,
    }
    return vision_config(folder, run, **fields)


def detection_config(folder: Path, run: Path, **vision: Any) -> TrainerConfig:
    """SSDlite for 128-pixel images from a Coco data set."""
    fields: dict[str, Any] = {
        "task": "Detection",
        "data": {"claim": "scenes", "format": "Coco"},
        "model": {"architecture": "ssdlite320_mobilenet_v3_large"},
        "imageSize": 128,
        "batchSize": 8,
        "augmentation": {"crop": "Center"},
        "optimizer": ADAMW,
        "workers": 0,
        **vision,
    }
    return vision_config(folder, run, **fields)
