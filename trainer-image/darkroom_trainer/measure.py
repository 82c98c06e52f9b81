"""Settles what the recipe leaves to the data: image size, normalisation, stem, and whether there are pretrained weights.

The same images give the same answer, so every process, and every later start of a run, comes to the same recipe.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from darkroom_api.v1alpha1.architectures import ARCHITECTURES, RESNETS
from darkroom_api.v1alpha1.measured import Measured, Normalization
from darkroom_api.v1alpha1.transfer import MissingWeights
from darkroom_api.v1alpha1.vision import Stem, TrainerConfig, Vision
from darkroom_trainer.data.decode import ImageError, decode, full_size
from darkroom_trainer.data.folder import Listing
from darkroom_trainer.data.place import files_of
from darkroom_trainer.data.transforms import SMALL_IMAGE
from darkroom_trainer.errors import DataError

log = logging.getLogger(__name__)

SAMPLE = 256
"""Images that are looked at: the median of so many, and a channel's mean, are within a few percent of those of all."""
STEP = 32
"""Pixels between two sizes: the patches of ViTs and the strides of the other networks divide it."""
STANDARD_STEM = 4
"""Times that a ResNet's standard stem divides the sides by: of images that were enlarged as much, it loses nothing."""
_LEAST_STD = 0.01
_SIDE = 64
"""Pixels per side at which colours are averaged."""


@dataclass(frozen=True)
class Measurements:
    """Of a sample of the training images."""

    side: int
    """Median of their shorter sides, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def settled(config: TrainerConfig) -> TrainerConfig:
    """The same configuration with every open question answered; raises DataError and ConfigError."""
    vision = _with_known_weights(config)
    if vision.measure:
        from darkroom_trainer.tasks.classification import Classification

        listing = Classification(config).folder.splits["train"]
        vision = with_measurements(vision, measure(listing))
    return config if vision is config.vision else config.model_copy(update={"vision": vision})


def _with_known_weights(config: TrainerConfig) -> Vision:
    vision, weights = config.vision, config.vision.model.weights
    if weights is None or weights.missing == MissingWeights.FAIL:
        return vision
    from darkroom_trainer.weights import are_missing

    if not are_missing(vision.model, config.weights_dir):
        return vision
    log.info("no file of %s for %s: training from scratch", weights.name or weights.path, vision.model.architecture)
    model = vision.model.model_copy(update={"weights": None})
    return vision.model_copy(update={"model": model, "transfer": None})


def measure(listing: Listing) -> Measurements:
    """From at most SAMPLE images, evenly over the classes."""
    chosen = np.unique(np.linspace(0, len(listing) - 1, SAMPLE).round().astype(int))
    sides, pixels, files = [], [], files_of(listing.root, listing.names)
    for index in chosen.tolist():
        try:
            image = decode(files.open(index))
        except ImageError:
            continue  # the loader counts them, and names them
        sides.append(min(full_size(image)))
        small = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        pixels.append(np.asarray(small, dtype=np.float64).reshape(-1, 3) / 255)
    if not sides:
        raise DataError("none of the training images can be read")
    mean, std = _moments(pixels)
    return Measurements(int(np.median(sides)), mean, std)


def _moments(pixels: Sequence[np.ndarray]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    every = np.concatenate(pixels)
    means, stds = every.mean(axis=0).tolist(), np.maximum(every.std(axis=0), _LEAST_STD).tolist()
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


def with_measurements(vision: Vision, found: Measurements) -> Vision:
    """The recipe that fits these images."""
    wanted = set(vision.measure or [])
    updates: dict[str, Any] = {"measure": None}
    size = vision.image_size
    if Measured.IMAGE_SIZE in wanted:
        size = updates["image_size"] = fitting_size(vision, found.side)
    if Measured.NORMALIZATION in wanted and vision.model.weights is None:
        mean, std = ([f"{value:.4f}" for value in channel] for channel in (found.mean, found.std))
        updates["normalization"] = Normalization(mean=mean, std=std)
    small = size <= SMALL_IMAGE and size < STANDARD_STEM * found.side
    if Measured.STEM in wanted and small and vision.model.weights is None and vision.model.architecture in RESNETS:
        updates["model"] = vision.model.model_copy(update={"stem": Stem.SMALL_IMAGE})
    log.info(
        "measured: images of %d px, trained at %d px; mean %s, std %s",
        found.side,
        size,
        *(" ".join(f"{value:.3f}" for value in channel) for channel in (found.mean, found.std)),
    )
    return vision.model_copy(update=updates)


def fitting_size(vision: Vision, side: int) -> int:
    """The smallest multiple of STEP that keeps the detail of images of this side, within what the network can take."""
    needs = ARCHITECTURES[vision.model.architecture]
    step = math.lcm(STEP, needs.multiple_of)
    least = _up(needs.min_size, step)
    if least > vision.image_size:
        return vision.image_size
    return max(least, min(_up(side, step), vision.image_size // step * step))


def _up(pixels: int, step: int) -> int:
    return math.ceil(pixels / step) * step
