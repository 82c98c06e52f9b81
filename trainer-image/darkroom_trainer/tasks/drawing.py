"""Pictures of answers: colours over areas, boxes with words."""

import colorsys
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

_OPACITY = 0.5


def color_of(value: int) -> tuple[int, int, int]:
    """A colour for class number `value`: 0 is black, neighbours differ most."""
    if value == 0:
        return 0, 0, 0
    hue = (value * 0.618033988749895) % 1  # the golden ratio: no two of any few come close
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0 if value % 2 else 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def overlay(image: Image.Image, areas: Iterable[tuple[np.ndarray, int]]) -> Image.Image:
    """The image with each area (bool [H, W]) tinted by its class."""
    pixels = np.asarray(image, dtype=np.float32).copy()
    for area, value in areas:
        pixels[area] = (1 - _OPACITY) * pixels[area] + _OPACITY * np.array(color_of(value), dtype=np.float32)
    return Image.fromarray(pixels.round().astype(np.uint8))


def boxed(image: Image.Image, boxes: Iterable[tuple[tuple[float, float, float, float], int, str]]) -> Image.Image:
    """The image with a frame in its class's colour around each box (left, top, right, bottom), and a word above it."""
    drawn = image.copy()
    brush = ImageDraw.Draw(drawn)
    width = max(1, round(min(image.size) / 200))
    for (left, top, right, bottom), value, word in boxes:
        color = color_of(value)
        brush.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=width)
        place = brush.textbbox((left, max(0, top - 12)), word)
        brush.rectangle(place, fill=color)
        brush.text(place[:2], word, fill="black" if sum(color) > 380 else "white")
    return drawn
