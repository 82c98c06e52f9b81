"""`darkroom-trainer predict MODEL IMAGE...`: what an exported model says about images.

Images go through the very preprocessing of evaluation, as model.json describes it.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from darkroom_api.report import ExitCode
from darkroom_trainer.data.decode import ImageError, decode
from darkroom_trainer.data.folder import walk
from darkroom_trainer.data.names import printable
from darkroom_trainer.errors import ConfigError, StorageError, TrainerError, headline
from darkroom_trainer.export import load_model
from darkroom_trainer.tasks import make_exported
from darkroom_trainer.tasks.base import Answer


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file; `error` says why there is nothing."""

    file: str
    answer: Answer | None = None
    error: str | None = None
    image: Image.Image | None = None
    """The file's image, where it is to be drawn on."""

    def as_json(self) -> str:
        content: dict[str, object] = {"file": self.file}
        if self.answer is None:
            content["error"] = self.error
        else:
            content["predictions"] = self.answer.as_json()
        return json.dumps(content, ensure_ascii=False)

    def as_rows(self) -> list[tuple[str, ...]]:
        return [(self.file, *row) for row in self.answer.rows()] if self.answer else []


class Predictor:
    """An exported model, ready for files of images."""

    def __init__(self, path: Path, *, device: torch.device) -> None:
        """Raises ConfigError as `load_model` does."""
        model, description = load_model(path)
        try:
            self._model: nn.Module = model.to(device)
        except (RuntimeError, AssertionError) as error:  # no driver, no such GPU, not compiled in
            raise ConfigError(f"--device {device}: {headline(error)}") from error
        self._device, self._task = device, make_exported(description)
        self.columns = self._task.columns

    def predict(
        self,
        files: Iterable[Path],
        *,
        top: int = 1,
        least: float = 0.5,
        batch_size: int = 32,
        keep_images: bool = False,
    ) -> Iterator[Prediction]:
        """One Prediction per file, in order; a file that is no image gets an error and stops nothing."""
        remaining = iter(files)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes without the GIL
            while batch := list(islice(remaining, batch_size)):
                read = list(pool.map(lambda file: self._read(file, keep_images), batch))
                yield from self._batch(batch, read, top, least)

    def _read(self, file: Path, keep_image: bool) -> "_Read | str":
        """What is wrong with the file, in words, if it cannot be read."""
        try:
            image = decode(file, at_least=0 if keep_image else self._task.at_least)
        except ImageError as error:
            return str(error)
        return _Read(self._task.prepare(image), image if keep_image else None)

    @torch.inference_mode()
    def _batch(self, files: list[Path], read: "list[_Read | str]", top: int, least: float) -> Iterator[Prediction]:
        good = [item.prepared for item in read if isinstance(item, _Read)]
        answers = iter(self._task.answers(self._model, good, self._device, top=top, least=least) if good else [])
        for file, item in zip(files, read, strict=True):
            name = printable(os.fsencode(file))
            if isinstance(item, str):
                yield Prediction(name, error=item)
            else:
                yield Prediction(name, answer=next(answers), image=item.image)


@dataclass(frozen=True)
class _Read:
    """A file as the network takes it, and as it is, where that is wanted."""

    prepared: Any
    image: Image.Image | None


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """The files as given; in place of a folder, the PNG and JPEG files below it, sorted."""
    for path in paths:
        if path.is_dir():
            names = sorted(name for name, usable in walk(os.fsencode(path), b"") if usable)
            yield from (path / os.fsdecode(name) for name in names)
        else:
            yield path


def main(argv: Sequence[str]) -> int:
    """Print what the model says; 65 if a file could not be read, 78 if the model could not be loaded."""
    arguments = _parser().parse_args(argv)
    try:
        predictor = Predictor(arguments.model, device=arguments.device)
    except TrainerError as error:
        print(f"darkroom-trainer predict: {error}", file=sys.stderr)
        return error.exit_code
    predictions = predictor.predict(
        find_images(arguments.images),
        top=arguments.top,
        least=arguments.min_score,
        batch_size=arguments.batch_size,
        keep_images=arguments.draw is not None,
    )
    if arguments.draw is not None:
        predictions = _drawn(predictions, arguments.draw)
    try:
        count, failed = _print(predictions, predictor.columns, as_json=arguments.json)
        sys.stdout.flush()
    except TrainerError as error:
        print(f"darkroom-trainer predict: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # as by `| head`: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    if not count:
        print("darkroom-trainer predict: no PNG or JPEG files found", file=sys.stderr)
    return ExitCode.DATA_ERROR if failed or not count else ExitCode.DONE


def _drawn(predictions: Iterable[Prediction], folder: Path) -> Iterator[Prediction]:
    """The same, with pictures in `folder` by the files' names; raises StorageError."""
    for prediction in predictions:
        if prediction.answer is not None and prediction.image is not None:
            pictures = prediction.answer.draw(prediction.image)
            if not pictures:
                raise ConfigError("--draw: the answers of this model are words; there is nothing to draw")
            stem = str(Path(prediction.file).with_suffix("")).strip("/.").replace("/", "_")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for ending, picture in pictures.items():
                    picture.save(folder / f"{stem}{ending}.png")
            except OSError as error:
                raise StorageError(f"--draw {folder}: {error.strerror or error}") from error
        yield prediction


def _print(predictions: Iterable[Prediction], columns: Sequence[str], *, as_json: bool) -> tuple[int, int]:
    """Print as they come; how many files there were, and how many failed."""
    count = failed = 0
    for prediction in predictions:
        if count == 0 and not as_json:
            print("\t".join(("file", *columns)))
        count += 1
        if as_json:
            print(prediction.as_json())
        for row in [] if as_json else prediction.as_rows():
            print("\t".join(row))
        if prediction.error is not None:
            failed += 1
            print(f"darkroom-trainer predict: {prediction.file}: {prediction.error}", file=sys.stderr)
    return count, failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="darkroom-trainer predict", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder `model/` of a run, or model.safetensors in it")
    parser.add_argument("images", type=Path, nargs="+", help="PNG or JPEG files, or folders of them")
    parser.add_argument("--top", type=_positive, default=1, help="of a classification: classes per image (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    parser.add_argument(
        "--min-score", type=_share, default=0.5, metavar="SHARE", help="of a detection: least score (default: 0.5)"
    )
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="of the others: write pictures of the answers here")
    parser.add_argument("--batch-size", type=_positive, default=32, help="images at once (default: 32)")
    parser.add_argument(
        "--device",
        type=_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where to compute (default: the GPU if there is one)",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _device(text: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no device: cpu, cuda or cuda:1") from error
