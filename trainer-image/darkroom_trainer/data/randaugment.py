"""RandAugment (Cubuk et al., 2020) on Pillow images: torchvision's operations and strengths, our own random draws.

torchvision draws from the global random state; here every draw comes from a generator that belongs to the sample.
"""

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageEnhance, ImageOps

STEPS = 30
"""Magnitudes run from 0 to this."""

Operation = Callable[[Image.Image, float], Image.Image]


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """`matrix` maps output to input pixels; what comes from outside is black."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength: kind(image).enhance(1.0 + 0.9 * strength)


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0.3 * strength, 0, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0.3 * strength, 1, 0))


def _translate_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, -int(150 / 331 * image.width * strength), 0, 1, 0))


def _translate_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, -int(150 / 331 * image.height * strength)))


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(30 * strength)


def _posterize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * strength))


def _solarize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.solarize(image, math.ceil(255 * (1 - strength)))


SIGNED: dict[str, Operation] = {
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
}
"""Operations whose strength, -1 to 1, is drawn with either sign."""

UNSIGNED: dict[str, Operation] = {
    "Identity": lambda image, _: image,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
}
"""Operations of a strength from 0 to 1, or of none."""

_NAMES = (*SIGNED, *UNSIGNED)


def rand_augment(image: Image.Image, operations: int, magnitude: float, random: Random) -> Image.Image:
    """Apply `operations` randomly drawn operations, each at `magnitude` of STEPS, to an RGB image."""
    for _ in range(operations):
        name = _NAMES[random.randrange(len(_NAMES))]
        strength = magnitude / STEPS
        if name in SIGNED:
            image = SIGNED[name](image, strength if random.random() < 0.5 else -strength)
        else:
            image = UNSIGNED[name](image, strength)
    return image
