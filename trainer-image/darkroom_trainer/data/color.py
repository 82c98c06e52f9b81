"""Colour jitter on Pillow images: torchvision's operations, our own random draws."""

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageEnhance

from darkroom_api.v1alpha1.augmentation import Color


def jitter(image: Image.Image, color: Color, random: Random) -> Image.Image:
    """Brightness, contrast, saturation and hue of an RGB image, each by a factor of its own, in a random order."""
    factors = {name: float(getattr(color, name)) for name in OPERATIONS}
    for name in random.sample(list(OPERATIONS), len(OPERATIONS)):
        most, neutral = factors[name], 0.0 if name == "hue" else 1.0
        if most:
            image = OPERATIONS[name](image, random.uniform(neutral - most, neutral + most))
    return image


def _hue(image: Image.Image, turn: float) -> Image.Image:
    """`turn` of the colour circle, -0.5 to 0.5."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue, dtype=np.int32) + int(turn * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "hue": _hue,
}
