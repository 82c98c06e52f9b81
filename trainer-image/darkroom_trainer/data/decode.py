"""Turns a PNG or JPEG file into an upright RGB image, whatever mode it was saved in."""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 178_956_970
"""Larger images are refused: a small file can claim any size (512 MiB of RGB at this one; Pillow's own limit)."""

_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION_SOURCES = ("exif", "xmp", "XML:com.adobe.xmp")


@dataclass(frozen=True)
class Pixels:
    """An image that is decoded already. data: uint8 RGB, row by row; full: width and height of the file's own image."""

    data: bytes
    size: tuple[int, int]
    full: tuple[int, int]

    def image(self) -> Image.Image:
        image = Image.frombuffer("RGB", self.size, self.data, "raw", "RGB", 0, 1)
        image.info[_FULL_SIZE] = self.full
        return image


Source = str | bytes | Path | BytesIO | Pixels
"""Where an image comes from: a file's name, its content, or its pixels."""
_FULL_SIZE = "full size"


def full_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the file's image, which a pack may keep at a smaller size."""
    width, height = image.info.get(_FULL_SIZE, image.size)
    return width, height


class ImageError(Exception):
    """A file that is no readable image; the message says why, without the file's name."""


def decode(source: Source, *, at_least: int = 0) -> Image.Image:
    """The image as RGB: transparency over white, 16-bit grey scaled to 8, CMYK converted, turned as EXIF says.

    A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep `at_least` pixels; 0 keeps full size.
    Raises ImageError for anything that cannot be read.
    """
    if isinstance(source, Pixels):
        return source.image()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and large sizes: the pixels decide, MAX_PIXELS refuses
            with Image.open(source, formats=("PNG", "JPEG")) as image:
                return _upright_rgb(image, at_least)
    except ImageError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes raises nearly anything
        raise ImageError(_reason(error)) from error


def open_png(source: Source) -> Image.Image:
    """A PNG as it is saved: what its values are is up to the caller. Raises ImageError as `decode` does."""
    try:
        with Image.open(source, formats=("PNG",)) as image:  # type: ignore[arg-type]  # a mask is never stored as pixels
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
            image.load()
            return image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("it is no PNG") from error
    except Exception as error:
        raise ImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What is wrong, without the path, which the caller knows better."""
    if isinstance(error, UnidentifiedImageError):
        return "it is neither PNG nor JPEG"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _upright_rgb(image: Image.Image, at_least: int) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
    if at_least and image.format == "JPEG":
        image.draft(image.mode, (at_least, at_least))
    if any(source in image.info for source in _ORIENTATION_SOURCES):
        image = ImageOps.exif_transpose(image)
    return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image, dtype=np.uint16) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
