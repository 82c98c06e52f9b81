"""What the data path costs: our loader against a bare DataLoader with the same work, and packs against folders of small files.

1,000 PNG files of 32x32 pixels, one process, each way in turns. `loader`: decoded and augmented in batches of 64, in CPU
time, which a neighbour on the machine doesn't change. Packs: wall clock of an epoch, each image read from the disk anew
(its pages are dropped before) and brought to 32 pixels; the folder's names stay in the kernel's cache, where a network
volume would ask for each.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.data.decode import decode
from darkroom_trainer.data.loader import make_loader
from darkroom_trainer.data.place import files_of
from darkroom_trainer.data.sampler import Plan, TrainingBatches
from darkroom_trainer.data.transforms import Preprocessing, Training
from darkroom_trainer.pack import write_pack
from darkroom_trainer.tasks.classification import Classification

ROUNDS, IMAGES, BATCH, SIZE = 5, 1000, 64, 32


class Bare(Dataset):
    """The least that gives the same samples: a list of paths, Pillow, the same random crop."""

    def __init__(self, paths: list[Path], transform: Training) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self._paths[index]) as image:
            pixels = self._transform(image.convert("RGB"), Random(index))  # noqa: S311 - pixels, not secrets
        return torch.from_numpy(pixels).permute(2, 0, 1), index


def run() -> dict[str, Any]:
    """Ratios, mean and standard deviation over rounds: above 1 the first one takes longer."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:
        folder = Path(name)
        _write(folder / "files")
        write_pack(folder / "files", folder / "pack")
        write_pack(folder / "files", folder / "pixels", size=SIZE)
        paths = sorted((folder / "files").rglob("*.png"))
        ours, bare = _loader(folder / "files"), _bare(folder / "files", paths)
        decoding = [(_cpu(lambda: [decode(path) for path in paths]), _cpu(bare), _cpu(ours)) for _ in range(ROUNDS)]
        images = [{which: _cold(folder, which, _images) for which in ("files", "pixels")} for _ in range(ROUNDS)]
        epochs = [
            {which: _cold(folder, which, _loader) for which in ("files", "pack", "pixels")} for _ in range(ROUNDS)
        ]
    return {
        "rounds": ROUNDS,
        "images": IMAGES,
        "loader_over_bare_cpu": _told(each[2] / each[1] for each in decoding),
        "loader_over_decoding_alone_cpu": _told(each[2] / each[0] for each in decoding),
        "folder_over_decoded_pack_without_augmentation": _told(each["files"] / each["pixels"] for each in images),
        "folder_over_pack": _told(each["files"] / each["pack"] for each in epochs),
        "folder_over_decoded_pack": _told(each["files"] / each["pixels"] for each in epochs),
        "folder_images_per_second": _told((IMAGES / each["files"] for each in epochs), digits=0),
        "decoded_pack_images_per_second": _told((IMAGES / each["pixels"] for each in epochs), digits=0),
    }


def _write(folder: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(IMAGES):
        path = folder / f"class{index % 10}" / f"{index:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)


def _task(folder: Path) -> Classification:
    vision = {
        "data": {"claim": "x", "split": {"train": "0.998", "val": "0.002", "test": "0"}},
        "model": {"architecture": "resnet18"},
        "imageSize": SIZE,
    }
    config = {"vision": vision, "dataDir": str(folder), "runDir": str(folder)}
    return Classification(TrainerConfig.model_validate(config, strict=False))


def _loader(folder: Path) -> Callable[[], None]:
    """An epoch of ours."""
    task = _task(folder)
    images = task.splits()["train"]
    plan = Plan(len(images), BATCH, BATCH, epochs=1, seed=0)

    def epoch() -> None:
        draws = TrainingBatches(plan, rank=0, world=1, start=0, end=plan.steps)
        for _ in make_loader(images, draws, task.collate, workers=0, device=torch.device("cpu")):
            pass

    return epoch


def _images(folder: Path) -> Callable[[], None]:
    """An epoch of images as they are, neither augmented nor put into batches."""
    listing = _task(folder).folder.splits["train"]
    files = files_of(listing.root, listing.names)

    def epoch() -> None:
        for index in torch.randperm(len(listing)).tolist():
            decode(files.open(index))

    return epoch


def _bare(folder: Path, paths: list[Path]) -> Callable[[], None]:
    """An epoch of as many images."""
    vision = _task(folder)._vision
    names = paths[: len(_task(folder).splits()["train"])]
    loader = DataLoader(
        Bare(names, Training(vision.augmentation, Preprocessing.of(vision))), batch_size=BATCH, shuffle=True
    )

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def _cpu(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _cold(folder: Path, which: str, way: Callable[[Path], Callable[[], None]]) -> float:
    """Seconds of an epoch whose bytes are on the disk alone."""
    epoch = way(folder / which)
    for path in (folder / which).rglob("*.*"):
        if path.is_file():
            _forget(path)
    began = time.perf_counter()
    epoch()
    return time.perf_counter() - began


def _forget(path: Path) -> None:
    """Drop a file's pages from the kernel's cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _told(values: Iterable[float], digits: int = 2) -> str:
    some = list(values)
    return f"{mean(some):.{digits}f} +- {stdev(some):.{digits}f}"
