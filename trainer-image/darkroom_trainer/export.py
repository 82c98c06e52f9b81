"""The model that a run leaves behind: weights and what one must know to use them.

model/model.safetensors   the weights, plain tensors that any tool reads
model/model.json          network, classes, preprocessing, metrics, and the weights' SHA-256
model/README.md           the same for people: the model card
"""

import json
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from darkroom_api.report import Artifact
from darkroom_trainer.errors import ConfigError, StorageError, is_full
from darkroom_trainer.files import replace
from darkroom_trainer.tasks import exported_kind, make_exported
from darkroom_trainer.weights import copy_into, file_digest

FORMAT = 1
"""Raised when an older reader could misread model.json."""
WEIGHTS, DESCRIPTION, CARD = "model.safetensors", "model.json", "README.md"


def export_model(
    model: nn.Module, folder: Path, *, description: dict[str, Any], metrics: dict[str, float], card: str = ""
) -> Artifact:
    """Write the files into `folder`, which is `model/` of the run's folder, and name the weights.

    `model` is the bare network, on any device; `description` is `Task.describe()`, `card` the
    text of README.md. Each file is replaced as a whole; a
    crash between the first two is noticed on loading, by the digest. Raises StorageError with the folder's name.
    """
    try:
        digest = _write(model, folder, description, metrics)
        if card:
            _replace(folder / CARD, lambda path: path.write_text(card, encoding="utf-8"))
    except (OSError, SafetensorError) as error:
        why = "no space left on its volume" if is_full(error) else getattr(error, "strerror", None) or error
        raise StorageError(f"the model could not be written to {folder}: {why}") from error
    return Artifact(path=f"{folder.name}/{WEIGHTS}", sha256=digest)


def _write(model: nn.Module, folder: Path, description: dict[str, Any], metrics: dict[str, float]) -> str:
    """The weights' SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    _replace(folder / WEIGHTS, lambda path: safetensors.torch.save_file(tensors, path, {"format": "pt"}))
    digest = file_digest(folder / WEIGHTS)
    content = {
        "format": FORMAT,
        **description,
        "metrics": metrics,
        "weights": {"file": WEIGHTS, "sha256": digest},
        "createdBy": {"darkroom": _darkroom_version(), "torch": torch.__version__},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    _replace(folder / DESCRIPTION, lambda path: path.write_text(text, encoding="utf-8"))
    _sync(folder)
    return digest


def load_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The exported network on the CPU in evaluation mode, and its description.

    `path` is the folder or the file of weights in it. Raises ConfigError with the file's name if one is missing,
    damaged, not of this format, or if the weights are not those that the description was written for.
    """
    named = path.suffix == ".safetensors"
    folder, weights = (path.parent, path) if named else (path, path / WEIGHTS)
    description = _read_description(folder / DESCRIPTION)
    digest, expected = file_digest(weights), description["weights"]["sha256"]
    if digest != expected:
        raise ConfigError(f"{weights} has SHA-256 {digest}, but {folder / DESCRIPTION} says {expected}")
    model = make_exported(description).build_model()
    copy_into(model, safetensors.torch.load_file(weights), source=f"weights {weights}")
    return model.eval(), description


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no exported model: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ConfigError(f"{path} is not a model description of format {FORMAT}")
    if "task" not in description:
        raise ConfigError(f"{path} lacks task")
    needed = (*exported_kind(description).needed, "weights.sha256")
    if missing := [key for key in needed if not _has(description, key)]:
        raise ConfigError(f"{path} lacks {', '.join(missing)}")
    return description


def _has(content: Any, dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Flushed to the disk before it takes its place."""

    def flushed(temporary: Path) -> None:
        write(temporary)
        _sync(temporary)

    replace(path, flushed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _darkroom_version() -> str:
    try:
        return version("darkroom")
    except PackageNotFoundError:
        return "unknown"  # run from a source tree
