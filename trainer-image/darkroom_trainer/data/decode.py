"""Turns a PNG or JPEG file into an upright RGB image, whatever mode it was saved in."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 178_956_970
"""Larger images are refused: a small file can claim any size (512 MiB of RGB at this one; Pillow's own limit)."""

_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION_SOURCES = ("exif", "xmp", "XML:com.adobe.xmp")


class ImageError(Exception):
    """A file that is no readable image; the message says why, without the file's name."""


def decode(path: str | bytes | Path, *, at_least: int = 0) -> Image.Image:
    """The image as RGB: transparency over white, 16-bit grey scaled to 8, CMYK converted, turned as EXIF says.

    A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep `at_least` pixels; 0 keeps full size.
    Raises ImageError for anything that cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and large sizes: the pixels decide, MAX_PIXELS refuses
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                return _upright_rgb(image, at_least)
    except ImageError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes raises nearly anything
        raise ImageError(_reason(error)) from error


def open_png(path: str | bytes | Path) -> Image.Image:
    """A PNG as it is saved: what its values are is up to the caller. Raises ImageError as `decode` does."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
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
