"""A small renderer: textured shapes under light, behind each other, through a lens that blurs and a sensor that rustles.

A scene follows from (seed, index) alone: the same pixels on any process, and nothing to store. What is random is drawn
from wide ranges on purpose (domain randomisation, Tobin et al., 2017): to a network that has seen them all, a
photograph is one more.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from darkroom_trainer.synthetic.shapes import CLASSES, OUTLINES, seen
from darkroom_trainer.synthetic.texture import background, lit, textured

_FINE = 3
"""Outlines are drawn at this multiple of the size and averaged: edges are smooth."""
_TRIES = 12


@dataclass(frozen=True)
class Recipe:
    """What scenes are like. Sizes are shares of the image's shorter side; ranges are inclusive.

    least_seen: share of an object that others may not hide.
    """

    size: tuple[int, int] = (128, 128)
    """Width and height in pixels."""
    classes: tuple[str, ...] = CLASSES
    objects: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (0.14, 0.28)
    tilt: float = 0.25
    texture: float = 1.0
    """Strength of patterns and clouds, 0 to 1."""
    light: float = 1.0
    """Strength of changing light and of shadows, 0 to 1."""
    blur: tuple[float, float] = (0.0, 1.0)
    noise: tuple[float, float] = (0.0, 12.0)
    least_seen: float = 0.6

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.classes) - set(CLASSES)):
            raise ValueError(f"no shapes named {', '.join(unknown)}; there are {', '.join(CLASSES)}")


@dataclass(frozen=True)
class Thing:
    """An object as far as it can be seen. label: index into the recipe's classes; mask: bool [H, W], never empty."""

    label: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge of what can be seen, in pixels."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class Scene:
    """pixels: uint8 [H, W, 3]; things: from the farthest to the nearest."""

    pixels: np.ndarray
    things: tuple[Thing, ...] = field(default=())

    def label_map(self) -> np.ndarray:
        """uint8 [H, W]: 0 is background, 1 the recipe's first class."""
        labels = np.zeros(self.pixels.shape[:2], dtype=np.uint8)
        for thing in self.things:
            labels[thing.mask] = thing.label + 1
        return labels


def render(recipe: Recipe, *, seed: int, index: int) -> Scene:
    """Scene number `index` of a seed."""
    random = np.random.default_rng(_entropy(seed, index))
    width, height = recipe.size
    covers = _arranged(recipe, random)
    pixels = background(height, width, random, strength=recipe.texture)
    angle = random.uniform(0, 2 * np.pi)
    for _, cover in covers:
        shadow = np.roll(cover, (round(3 * np.sin(angle)), round(3 * np.cos(angle))), axis=(0, 1))
        pixels = pixels * (1 - 0.35 * recipe.light * shadow[..., None])
        surface = textured(pixels, cover, random, strength=recipe.texture)
        pixels = pixels + (lit(surface, angle, random, strength=recipe.light) - pixels) * cover[..., None]
    labels = [label for label, _ in covers]
    masks = _visible([cover for _, cover in covers])
    things = tuple(Thing(label, mask) for label, mask in zip(labels, masks, strict=True))
    return Scene(_photographed(lit(pixels, angle, random, strength=recipe.light), recipe, random), things)


def _entropy(seed: int, index: int) -> int:
    return int.from_bytes(blake2b(b"scene/%d/%d" % (seed, index), digest_size=16).digest(), "big")


def _arranged(recipe: Recipe, random: np.random.Generator) -> list[tuple[int, np.ndarray]]:
    """Labels and covers (float [H, W], 1 inside) of objects of which enough can be seen; at least one."""
    chosen: list[tuple[int, np.ndarray]] = []
    wanted = int(random.integers(recipe.objects[0], recipe.objects[1] + 1))
    for _ in range(_TRIES * wanted):
        if len(chosen) == wanted:
            break
        candidate = _placed(recipe, random)
        covers = [*(cover for _, cover in chosen), candidate[1]]
        whole = [(cover >= 0.5).sum() for cover in covers]
        seen_ = [mask.sum() for mask in _visible(covers)]
        if all(part >= max(1, recipe.least_seen * all_) for part, all_ in zip(seen_, whole, strict=True)):
            chosen.append(candidate)
    return chosen


def _placed(recipe: Recipe, random: np.random.Generator) -> tuple[int, np.ndarray]:
    """One object, wholly inside the image."""
    width, height = recipe.size
    label = int(random.integers(len(recipe.classes)))
    radius = random.uniform(*recipe.radius) * min(width, height)
    center = random.uniform(radius, width - radius), random.uniform(radius, height - radius)
    outline = OUTLINES[recipe.classes[label]]()
    turn, tilt = random.uniform(0, 2 * np.pi), random.uniform(-recipe.tilt, recipe.tilt, 2)
    points = seen(outline, center=center, radius=radius, turn=turn, tilt=tilt)
    canvas = Image.new("L", (width * _FINE, height * _FINE))
    ImageDraw.Draw(canvas).polygon([(x * _FINE, y * _FINE) for x, y in points], fill=255)
    return label, np.asarray(canvas.resize((width, height), Image.Resampling.BOX), dtype=np.float64) / 255


def _visible(covers: list[np.ndarray]) -> list[np.ndarray]:
    """What the later, nearer objects leave of each."""
    hidden = np.zeros(covers[0].shape, dtype=bool) if covers else np.zeros((0, 0), dtype=bool)
    masks = []
    for cover in reversed(covers):
        masks.append((cover >= 0.5) & ~hidden)
        hidden |= cover >= 0.5
    return masks[::-1]


def _photographed(pixels: np.ndarray, recipe: Recipe, random: np.random.Generator) -> np.ndarray:
    """Lens and sensor: blur, then noise; uint8."""
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(*recipe.blur)))
    rustle = random.normal(0, random.uniform(*recipe.noise), pixels.shape)
    return np.clip(np.asarray(image) + rustle, 0, 255).astype(np.uint8)
