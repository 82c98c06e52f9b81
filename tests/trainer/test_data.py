"""From files to batches: every mode that PNG and JPEG come in, damaged files, and pixels that follow from a key."""

import errno
import io
import os
import struct
import warnings
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from darkroom_api.v1alpha1.augmentation import Augmentation, RandAugment
from darkroom_trainer.data import decode as decoding
from darkroom_trainer.data.dataset import FolderImages, collate
from darkroom_trainer.data.decode import ImageError, decode
from darkroom_trainer.data.folder import read_folder
from darkroom_trainer.data.split import Shares
from darkroom_trainer.data.transforms import Evaluation, Preprocessing, Training
from darkroom_trainer.errors import StorageError, headline
from darkroom_trainer.tasks.base import SampleRef
from tests.trainer.images import COLORS, noisy, write_colors

HALF = Preprocessing(resize=32, crop=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
WILD = Training(Augmentation(rand_augment=RandAugment(operations=2, magnitude=15), erasing="0.5"), HALF)
SHARES = Shares(0.5, 0.5, 0)


def encoded(image: Image.Image, format: str = "PNG", **options) -> io.BytesIO:  # noqa: A002
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


def flat(mode: str, color) -> Image.Image:
    return Image.new(mode, (8, 8), color)


def half_transparent_palette() -> io.BytesIO:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    return encoded(image, transparency=bytes([255, 128]))


@pytest.mark.parametrize(
    ("file", "expected", "tolerance"),
    [
        pytest.param(encoded(flat("RGB", (10, 200, 30))), (10, 200, 30), 0, id="RGB PNG"),
        pytest.param(encoded(flat("RGB", (10, 200, 30)), "JPEG"), (10, 200, 30), 4, id="RGB JPEG"),
        pytest.param(encoded(flat("L", 77)), (77, 77, 77), 0, id="grey PNG"),
        pytest.param(encoded(flat("L", 77), "JPEG"), (77, 77, 77), 1, id="grey JPEG"),
        pytest.param(encoded(flat("1", 1)), (255, 255, 255), 0, id="one bit"),
        pytest.param(encoded(flat("I;16", 200 * 257)), (200, 200, 200), 0, id="16-bit grey"),
        pytest.param(encoded(flat("RGB", (9, 99, 199)).quantize(4)), (9, 99, 199), 0, id="palette"),
        pytest.param(half_transparent_palette(), (127, 127, 255), 1, id="palette, half transparent"),
        pytest.param(encoded(flat("RGBA", (255, 0, 0, 0))), (255, 255, 255), 0, id="transparent is white"),
        pytest.param(encoded(flat("RGBA", (255, 0, 0, 128))), (255, 127, 127), 1, id="half transparent"),
        pytest.param(encoded(flat("LA", (0, 128))), (127, 127, 127), 1, id="grey with alpha"),
        pytest.param(encoded(flat("RGB", (1, 2, 3)), transparency=(1, 2, 3)), (255, 255, 255), 0, id="colour key"),
        pytest.param(encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG"), (255, 0, 0), 4, id="CMYK JPEG"),
        pytest.param(
            encoded(flat("RGB", (9, 99, 199)), "MPO", save_all=True, append_images=[flat("RGB", "red")]),
            (9, 99, 199), 4, id="a phone's JPEG with a second picture",
        ),
    ],
)  # fmt: skip
def test_every_mode_becomes_rgb(file, expected, tolerance):
    file.seek(0)
    image = decode(file)
    assert image.mode == "RGB"
    pixels = np.asarray(image).astype(int)
    assert np.abs(pixels - expected).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_the_orientation_in_exif_is_applied(orientation, format):  # noqa: A002
    upright = Image.new("RGB", (32, 16), "black")
    upright.paste((255, 255, 255), (0, 0, 16, 8))  # the top left quarter is white
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.asarray(decode(encoded(stored, format, exif=exif))).astype(int)
    assert np.abs(pixels - np.asarray(upright)).max() <= 40


def test_a_large_jpeg_is_decoded_small_but_not_below_what_is_needed():
    file = encoded(noisy((90, 120, 40), size=(800, 600)), "JPEG")
    assert decode(file, at_least=150).size == (200, 150)
    file.seek(0)
    assert decode(file, at_least=151).size == (400, 300)
    file.seek(0)
    assert decode(file).size == (800, 600)


def bomb() -> bytes:
    """A PNG of a few bytes that claims 20000 x 20000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def cut(format: str) -> bytes:  # noqa: A002
    whole = encoded(noisy((90, 120, 40), size=(64, 64)), format).getvalue()
    return whole[: len(whole) // 2]


DAMAGED = [
    pytest.param(b"", id="empty"),
    pytest.param(b"no image at all", id="text"),
    pytest.param(cut("PNG"), id="PNG cut off"),
    pytest.param(cut("JPEG"), id="JPEG cut off"),
    pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 40, id="PNG of zeros"),
    pytest.param(bomb(), id="decompression bomb"),
    pytest.param(encoded(flat("RGB", "red"), "GIF").getvalue(), id="GIF by another name"),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_an_image_error(content, tmp_path):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError) as raised:
        decode(tmp_path / "x.png")
    assert str(tmp_path) not in str(raised.value), "the caller names the file as its user knows it"


def test_between_pillows_warning_and_its_error_large_images_are_read(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encoded(flat("RGB", "red"))).size == (8, 8)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 60)
    with pytest.raises(ImageError, match="8x8 pixels are more than 60"):
        decode(encoded(flat("RGB", "red")))


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_becomes_a_blank_that_does_not_count(content, tmp_path):
    write_colors(tmp_path, 4)
    (tmp_path / "red/001.png").write_bytes(content)
    listings = read_folder(tmp_path, shares=SHARES).splits.values()
    listing = next(part for part in listings if "red/001.png" in list(part.names))
    images = FolderImages(listing, WILD, size=32, seed=0)
    batch = collate([images[SampleRef(index, 0)] for index in range(len(images))])
    broken = list(listing.names).index("red/001.png")
    assert batch.corrupt == ["red/001.png"]
    assert batch.valid.tolist() == [0.0 if index == broken else 1.0 for index in range(len(images))]
    assert (batch.images[broken] == 128).all()
    assert batch.images.shape == (len(images), 3, 32, 32)


def test_a_file_that_vanished_becomes_a_blank(tmp_path):
    write_colors(tmp_path, 2)
    listing = read_folder(tmp_path, shares=SHARES).splits["train"]
    (tmp_path / listing.names[0]).unlink()
    assert FolderImages(listing, WILD, size=32, seed=0)[SampleRef(0, 0)].corrupt == listing.names[0]


@pytest.fixture
def images(tmp_path: Path) -> FolderImages:
    write_colors(tmp_path, 12)
    return FolderImages(read_folder(tmp_path, shares=SHARES).splits["train"], WILD, size=32, seed=7)


def epoch_of(images: FolderImages, epoch: int, order=None, **loader) -> dict[int, bytes]:
    """Pixels by index, as they come out of a loader."""
    order = list(order if order is not None else range(len(images)))
    refs = [SampleRef(index, epoch) for index in order]
    batches = DataLoader(images, batch_size=5, sampler=refs, collate_fn=collate, **loader)
    pixels = torch.cat([batch.images for batch in batches])
    return {index: image.numpy().tobytes() for index, image in zip(order, pixels, strict=True)}


def test_pixels_follow_from_seed_epoch_and_index_alone(images):
    here = epoch_of(images, 3)
    torch.manual_seed(1)
    assert epoch_of(images, 3, order=reversed(range(len(images)))) == here
    torch.manual_seed(2)
    assert epoch_of(images, 3, num_workers=2) == here
    assert epoch_of(images, 4) != here
    images._seed = 8
    assert epoch_of(images, 3) != here


def test_the_same_pixels_on_every_machine(tmp_path):
    """Frozen: a change here changes what a resumed run sees."""
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)).save(
        tmp_path / "x.png"
    )
    for name in COLORS:
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(2):
            (tmp_path / "data" / name / f"{index}.png").write_bytes((tmp_path / "x.png").read_bytes())
    pad = Training(Augmentation.model_validate({"crop": "RandomPad"}, strict=False), HALF)
    listing = read_folder(tmp_path / "data", shares=SHARES).splits["train"]
    pixels = FolderImages(listing, pad, size=32, seed=1)[SampleRef(0, 1)].pixels
    assert zlib.crc32(pixels.tobytes()) == 404051772


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_volume_that_is_away_makes_no_image_corrupt(images, monkeypatch, number):
    """Such a run is worth a restart; counted as corrupt, it would end as a data error, which is for good."""

    def away(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(decoding.Image, "open", away)
    with pytest.raises(StorageError, match=rf"/blue/.*\.png cannot be read: {os.strerror(number)}"):
        images[SampleRef(0, 0)]


class Away:
    """A split whose volume went away."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, ref: SampleRef) -> None:
        raise StorageError("/data/x.png cannot be read: Stale file handle")


def test_an_error_of_a_loader_process_keeps_its_class_and_its_words():
    loader = DataLoader(Away(), batch_size=1, num_workers=1, multiprocessing_context="forkserver")
    with pytest.raises(StorageError) as error:
        next(iter(loader))
    assert headline(error.value) == "/data/x.png cannot be read: Stale file handle"


def test_drawing_a_sample_leaves_the_global_random_states_alone(images):
    import random

    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    images[SampleRef(0, 0)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])


def test_collate_gives_bytes_channels_last(images):
    batch = collate([images[SampleRef(index, 0)] for index in range(4)])
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last), "no copy for a GPU that wants it so"
    assert batch.targets.dtype == torch.int64
    assert batch.valid.dtype == torch.float32


def test_evaluation_sees_the_same_pixels_in_every_epoch(tmp_path):
    write_colors(tmp_path, 4)
    images = FolderImages(read_folder(tmp_path, shares=SHARES).splits["val"], Evaluation(HALF), size=32, seed=0)
    same = partial(np.array_equal, images[SampleRef(0, 0)].pixels)
    assert same(images[SampleRef(0, 1)].pixels)
