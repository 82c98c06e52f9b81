"""Small data sets on disk, configurations for them, and a quiet place to compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from darkroom_api.v1alpha1.vision import TrainerConfig

COLORS = {"blue": (40, 60, 220), "green": (30, 190, 60), "red": (210, 40, 30)}
"""Classes that a network tells apart after a few steps."""


def noisy(color: tuple[int, int, int], *, size: tuple[int, int] = (40, 32), seed: int = 0) -> Image.Image:
    """An image of `size` (width, height): one colour under noise."""
    noise = np.random.default_rng(seed).normal(0, 20, (size[1], size[0], 3))
    return Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8))


def write_class(folder: Path, color: tuple[int, int, int], count: int, *, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noisy(color, seed=index).save(folder / f"{index:03}{suffix}")


def write_colors(folder: Path, count: int = 10, *, suffix: str = ".png") -> Path:
    """A folder of three classes with `count` images each."""
    for name, color in COLORS.items():
        write_class(folder / name, color, count, suffix=suffix)
    return folder


def vision_config(folder: Path, run: Path, *, weights: Path | None = None, **vision: Any) -> TrainerConfig:
    """The configuration of a ResNet-18 for 32-pixel images; `vision` overrides fields by their JSON names."""
    fields = {
        "data": {"claim": "images"},
        "model": {"architecture": "resnet18", "stem": "SmallImage"},
        "imageSize": 32,
        **vision,
    }
    content = {"vision": fields, "dataDir": str(folder), "runDir": str(run)}
    if weights:
        content["weightsDir"] = str(weights)
    return TrainerConfig.model_validate(content, strict=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: several that wait for each other on busy cores make small layers twenty times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
