"""Surfaces and light, float64 [H, W, 3] in 0..255. `strength`, 0 to 1: 0 leaves a surface plain, or its light even."""

from collections.abc import Callable

import numpy as np
from PIL import Image

_CONTRAST = 60.0
"""Least distance in RGB between an object and what lies behind it, on average: what nobody can see, nobody can learn."""


def background(height: int, width: int, random: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """A pattern of two colours that are close to each other, with clouds."""
    first = random.uniform(20, 235, 3)
    second = first + random.uniform(-30, 30, 3)
    pattern = _pattern(height, width, first, second, random, strength)
    return pattern + strength * 25 * (_clouds(height, width, random) - 0.5)[..., None]


def textured(
    behind: np.ndarray, cover: np.ndarray, random: np.random.Generator, *, strength: float = 1.0
) -> np.ndarray:
    """The surface of an object, of another colour than what it covers."""
    around = np.average(behind.reshape(-1, 3), axis=0, weights=cover.ravel() + 1e-9)
    first = random.uniform(0, 255, 3)
    while np.linalg.norm(first - around) < _CONTRAST * 1.5:
        first = random.uniform(0, 255, 3)
    second = first + (first - around) * random.uniform(0, 0.5) + random.uniform(-20, 20, 3)
    return _pattern(*cover.shape, first, second, random, strength)


def lit(surface: np.ndarray, direction: float, random: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """Light that falls off along a direction, in radians."""
    height, width = surface.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    along = (np.cos(direction) * (x / width - 0.5) + np.sin(direction) * (y / height - 0.5))[..., None]
    level, slope = random.uniform(0.85, 1.1), random.uniform(-0.3, 0.3)
    return surface * (1 + strength * (level - 1 + slope * along))


def _pattern(
    height: int, width: int, first: np.ndarray, second: np.ndarray, random: np.random.Generator, strength: float
) -> np.ndarray:
    kind = _PATTERNS[int(random.integers(len(_PATTERNS)))]
    share = strength * kind(height, width, random)[..., None]
    return first * (1 - share) + second * share


def _plain(height: int, width: int, _: np.random.Generator) -> np.ndarray:
    return np.zeros((height, width))


def _stripes(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    turn, period = random.uniform(0, np.pi), random.uniform(4, 16)
    return 0.5 + 0.5 * np.sin((np.cos(turn) * x + np.sin(turn) * y) * (2 * np.pi / period))


def _checks(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    side = random.uniform(3, 10)
    return ((x // side + y // side) % 2).astype(np.float64)


def _clouds(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Smooth noise in 0..1, of two sizes."""
    total = np.zeros((height, width))
    for cells, weight in ((4, 0.7), (12, 0.3)):
        coarse = Image.fromarray((random.random((cells, cells)) * 255).astype(np.uint8))
        total += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 255
    return total


_PATTERNS: tuple[Callable[[int, int, np.random.Generator], np.ndarray], ...] = (_plain, _stripes, _checks, _clouds)
