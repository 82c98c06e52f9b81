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

import numpy as np
import torch
from torch import nn

from darkroom_api.report import ExitCode
from darkroom_trainer.data.decode import ImageError, decode
from darkroom_trainer.data.folder import printable, walk
from darkroom_trainer.data.transforms import Evaluation, Preprocessing, normalize
from darkroom_trainer.errors import ConfigError, TrainerError, headline
from darkroom_trainer.export import load_model


@dataclass(frozen=True)
class Prediction:
    """Classes of one file with their probabilities, most likely first; `error` says why there are none."""

    file: str
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def as_json(self) -> str:
        content: dict[str, object] = {"file": self.file}
        if self.error is not None:
            content["error"] = self.error
        else:
            content["predictions"] = [{"class": name, "probability": p} for name, p in self.classes]
        return json.dumps(content, ensure_ascii=False)

    def as_rows(self) -> list[tuple[str, str, str]]:
        return [(self.file, name, f"{probability:.4f}") for name, probability in self.classes]


class Predictor:
    """An exported model, ready for files of images."""

    def __init__(self, path: Path, *, device: torch.device) -> None:
        """Raises ConfigError as `load_model` does."""
        model, description = load_model(path)
        try:
            self._model: nn.Module = model.to(device)
        except (RuntimeError, AssertionError) as error:  # no driver, no such GPU, not compiled in
            raise ConfigError(f"--device {device}: {headline(error)}") from error
        self._device = device
        self._classes: list[str] = description["classes"]
        self._preprocessing = Preprocessing.read(description["preprocessing"])
        self._transform = Evaluation(self._preprocessing)

    def predict(self, files: Iterable[Path], *, top: int = 1, batch_size: int = 32) -> Iterator[Prediction]:
        """One Prediction per file, in order; a file that is no image gets an error and stops nothing."""
        remaining = iter(files)
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes without the GIL
            while batch := list(islice(remaining, batch_size)):
                yield from self._batch(batch, list(pool.map(self._pixels, batch)), top)

    def _pixels(self, file: Path) -> np.ndarray | str:
        """uint8 [size, size, 3], or what is wrong with the file."""
        try:
            return self._transform(decode(file, at_least=self._transform.at_least))
        except ImageError as error:
            return str(error)

    def _batch(self, files: list[Path], pixels: list[np.ndarray | str], top: int) -> Iterator[Prediction]:
        good = [image for image in pixels if isinstance(image, np.ndarray)]
        answers = iter(self._answers(good, top) if good else [])
        for file, image in zip(files, pixels, strict=True):
            name = printable(os.fsencode(file))
            if isinstance(image, str):
                yield Prediction(name, error=image)
            else:
                yield Prediction(name, classes=next(answers))

    @torch.inference_mode()
    def _answers(self, pixels: list[np.ndarray], top: int) -> list[tuple[tuple[str, float], ...]]:
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous().to(self._device)
        probabilities = self._model(normalize(images, self._preprocessing)).float().softmax(dim=1).cpu()
        values, indices = probabilities.topk(min(top, len(self._classes)))
        return [
            tuple((self._classes[index], value) for value, index in zip(row, order, strict=True))
            for row, order in zip(values.tolist(), indices.tolist(), strict=True)
        ]


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
    predictions = predictor.predict(find_images(arguments.images), top=arguments.top, batch_size=arguments.batch_size)
    try:
        count, failed = _print(predictions, as_json=arguments.json)
        sys.stdout.flush()
    except BrokenPipeError:  # as by `| head`: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    if not count:
        print("darkroom-trainer predict: no PNG or JPEG files found", file=sys.stderr)
    return ExitCode.DATA_ERROR if failed or not count else ExitCode.DONE


def _print(predictions: Iterable[Prediction], *, as_json: bool) -> tuple[int, int]:
    """Print as they come; how many files there were, and how many failed."""
    count = failed = 0
    for prediction in predictions:
        if count == 0 and not as_json:
            print("file\tclass\tprobability")
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
    parser.add_argument("--top", type=_positive, default=1, help="classes per image, most likely first (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
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


def _device(text: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no device: cpu, cuda or cuda:1") from error
