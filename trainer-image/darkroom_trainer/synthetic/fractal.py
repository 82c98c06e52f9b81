"""Fractals with classes: images and labels from formulas, without a photograph or a licence.

A class is an iterated function system, a set of affine maps of the plane; its attractor is drawn by the chaos game, as in
FractalDB (Kataoka et al., "Pre-training without Natural Images", ACCV 2020). Singular values are drawn as Anderson and
Farrell do ("Improving Fractal Pre-training", WACV 2022), which makes nearly all systems worth looking at, and so are
colours and backgrounds. A class follows from (seed, class), an image from (seed, number) and nothing else.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from darkroom_trainer.synthetic.texture import background

_MAPS = (2, 4)
_PARTICLES, _ROUNDS, _SETTLING = 256, 120, 20
"""Points that play the chaos game side by side, their moves, and how many of the first ones are not drawn."""
_FILLED = 0.12
"""Least share of a coarse grid that a class's attractor covers: less is a few dots."""
_GRID = 32
_TRIES = 200


@dataclass(frozen=True)
class System:
    """An iterated function system. matrices: float64 [k, 2, 2]; shifts: float64 [k, 2]; weights: how often each is chosen."""

    matrices: np.ndarray
    shifts: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, matrices: np.ndarray, shifts: np.ndarray) -> "System":
        """Maps are chosen in proportion to the area that they leave."""
        areas = np.abs(np.linalg.det(matrices)) + 1e-3
        return cls(matrices, shifts, areas / areas.sum())

    def points(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points of the attractor, float64 [n, 2] in the unit square, and the map that each came by, int64 [n]."""
        points = random.uniform(-1, 1, (_PARTICLES, 2))
        choices = random.choice(len(self.weights), size=(_ROUNDS, _PARTICLES), p=self.weights)
        seen = []
        for chosen in choices:
            points = np.einsum("nij,nj->ni", self.matrices[chosen], points) + self.shifts[chosen]
            seen.append(points)
        flat = np.concatenate(seen[_SETTLING:])
        low, high = np.percentile(flat, 0.5, axis=0), np.percentile(flat, 99.5, axis=0)
        return (flat - low) / np.maximum(high - low, 1e-9), choices[_SETTLING:].ravel()


@lru_cache(maxsize=4096)
def system_of(seed: int, label: int) -> System:
    """The formula of a class."""
    random = _generator(b"class", seed, label)
    for _ in range(_TRIES):
        system = _drawn(random)
        if filled(system.points(random)[0]) >= _FILLED:
            break
    return system


def filled(points: np.ndarray) -> float:
    """Share of a coarse grid that points of the unit square fall into."""
    cells = np.clip((points * _GRID).astype(int), 0, _GRID - 1)
    return len(np.unique(cells[:, 0] * _GRID + cells[:, 1])) / _GRID**2


def render_fractal(classes: int, *, size: int, seed: int, number: int) -> tuple[np.ndarray, int]:
    """Image `number`: uint8 [size, size, 3], and its class; the classes take turns."""
    label, random = number % classes, _generator(b"image", seed, number)
    system = system_of(seed, label)
    scale = random.uniform(0.85, 1.0, (len(system.weights), 1, 1))  # never up: maps must contract
    points, maps = System.of(system.matrices * scale, system.shifts).points(random)
    return _painted(_turned(points, random), maps, size, random), label


def _drawn(random: np.random.Generator) -> System:
    """Matrices by their singular values, whose sum of first and twice second lies where attractors are neither dots nor dust."""
    count = int(random.integers(_MAPS[0], _MAPS[1] + 1))
    low, high = (5 + count) / 2, (6 + count) / 2
    while True:
        values = np.sort(random.uniform(0, 1, (count, 2)), axis=1)[:, ::-1]
        if low <= values[:, 0].sum() + 2 * values[:, 1].sum() <= high:
            break
    signs = random.choice([-1.0, 1.0], (count, 2))
    first, second = (_rotations(random.uniform(-np.pi, np.pi, count)) for _ in range(2))
    matrices = first @ (values[:, :, None] * second) * signs[:, None, :]
    return System.of(matrices, random.uniform(-1, 1, (count, 2)))


def _rotations(angles: np.ndarray) -> np.ndarray:
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cosine, -sine], axis=1), np.stack([sine, cosine], axis=1)], axis=1)


def _turned(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Mirrored or turned by quarters, somewhat smaller than the image, and somewhere in it."""
    if random.random() < 0.5:
        points = points[:, ::-1]
    points = np.where(random.random(2) < 0.5, 1 - points, points)
    scale = random.uniform(0.6, 0.95)
    return points * scale + random.uniform(0, 1 - scale, 2)


def _painted(points: np.ndarray, maps: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Dense places bright, each map's part in a hue of its own, over a background."""
    inside = ((points >= 0) & (points < 1)).all(axis=1)
    cells = (points[inside] * size).astype(int)
    places, maps = cells[:, 1] * size + cells[:, 0], maps[inside]
    counts = np.bincount(places, minlength=size * size).astype(np.float64)
    palette = random.uniform(60, 255, (int(maps.max(initial=0)) + 1, 3))
    sums = np.stack([np.bincount(places, weights=palette[maps, c], minlength=size * size) for c in range(3)], axis=1)
    colors = sums / np.maximum(counts, 1)[:, None]
    depth = np.log1p(counts) / max(np.log1p(counts.max()), 1e-9)
    cover = np.where(counts > 0, 0.5 + 0.5 * depth, 0.0)[:, None]
    behind = background(size, size, random).reshape(-1, 3) * 0.6
    return np.clip(behind * (1 - cover) + colors * cover, 0, 255).astype(np.uint8).reshape(size, size, 3)


def _generator(kind: bytes, *key: int) -> np.random.Generator:
    text = b"fractal/" + kind + b"/" + b"/".join(b"%d" % part for part in key)
    return np.random.default_rng(int.from_bytes(blake2b(text, digest_size=16).digest(), "big"))
