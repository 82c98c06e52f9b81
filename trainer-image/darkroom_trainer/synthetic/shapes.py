"""Outlines of the objects of a scene, in the unit circle, and how a camera sees them."""

import math
from collections.abc import Callable

import numpy as np


def _polygon(corners: int, *, turn: float = 0.0) -> np.ndarray:
    angles = np.arange(corners) * (2 * math.pi / corners) + turn
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(points: int, inner: float) -> np.ndarray:
    outline = _polygon(2 * points, turn=-math.pi / 2)
    outline[1::2] *= inner
    return outline


def _cross(arm: float) -> np.ndarray:
    a = arm
    corners = [
        (-a, -1),
        (a, -1),
        (a, -a),
        (1, -a),
        (1, a),
        (a, a),
        (a, 1),
        (-a, 1),
        (-a, a),
        (-1, a),
        (-1, -a),
        (-a, -a),
    ]
    return np.array(corners, dtype=float) * 0.9


def _crescent() -> np.ndarray:
    outer = np.linspace(math.radians(50), math.radians(310), 40)
    inner = np.linspace(math.radians(310), math.radians(50), 40)
    bite = np.stack([0.35 + 0.72 * np.cos(inner), 0.72 * np.sin(inner)], axis=1)
    return np.concatenate([np.stack([np.cos(outer), np.sin(outer)], axis=1), bite])


OUTLINES: dict[str, Callable[[], np.ndarray]] = {
    "circle": lambda: _polygon(48),
    "square": lambda: _polygon(4, turn=math.pi / 4),
    "triangle": lambda: _polygon(3, turn=-math.pi / 2),
    "star": lambda: _star(5, 0.42),
    "cross": lambda: _cross(0.34),
    "crescent": _crescent,
}
"""Corners of each class, float [n, 2], x to the right and y down; their order in this table is that of the labels."""

CLASSES = tuple(OUTLINES)


def seen(
    outline: np.ndarray, *, center: tuple[float, float], radius: float, turn: float, tilt: np.ndarray
) -> np.ndarray:
    """The outline in pixels: turned, scaled, moved, and foreshortened by `tilt` (x, y) as a plane that leans away."""
    cosine, sine = math.cos(turn), math.sin(turn)
    points = outline @ np.array([[cosine, sine], [-sine, cosine]])
    points = points / (1 + points @ tilt)[:, None]
    return points * radius + np.array(center)
