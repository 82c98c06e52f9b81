"""Starts a network from a file of weights: checked by digest, matched key by key, nothing skipped in silence."""

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import nn

from darkroom_api.v1alpha1.transfer import DEFAULT_WEIGHTS
from darkroom_api.v1alpha1.vision import Architecture
from darkroom_trainer.errors import ConfigError

log = logging.getLogger(__name__)

_WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts keep the weights among other things."""

_RENAMED = (
    # torchvision's published files of these two families still carry the names of its first releases.
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
_DETECTORS_RENAMED: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    # So do those of its detectors; a name that the network has itself stays.
    (re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(\w+)"), lambda m: f"{m[1]}.0.{m[2]}"),
    (re.compile(r"(rpn\.head\.conv)\.(\w+)"), lambda m: f"{m[1]}.0.0.{m[2]}"),
    (
        re.compile(r"(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(\w+)"),
        lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}",
    ),
)
_OPTIONAL = ".num_batches_tracked"  # a counter that files older than torch 0.4.1 lack and inference never reads


@dataclass(frozen=True)
class WeightsReport:
    """What came out of the file: `kept` was loaded; `dropped` is the head of another class count, or an auxiliary one."""

    sha256: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Backbone:
    """A classification network inside a larger one, which may start from a file of it.

    places: where each tensor of it lies in the larger network; what the larger one has no use for is left out.
    """

    architecture: str
    places: Mapping[str, str]
    unused: Collection[str]

    def is_file_of(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether a file holds this network, not the larger one."""
        return any(key in tensors for key in self.places) and not any(key in tensors for key in self.places.values())


def load_configured(
    model: nn.Module,
    wanted: Architecture,
    folder: str | None,
    *,
    head: Collection[str],
    spare: tuple[str, ...] = (),
    backbone: Backbone | None = None,
) -> None:
    """What `spec.vision.model.weights` names, if it names something; `folder` is where its claim is. Raises ConfigError."""
    weights = wanted.weights
    if weights is None:
        return
    if folder is None:
        raise ConfigError("model.weights needs weightsDir, the folder where its claim is")
    path, prefix = Path(folder, str(weights.path).lstrip("/")), ""
    if weights.name is not None:
        names = [wanted.architecture, *([backbone.architecture] if backbone else [])]
        path, prefix = named_weights(weights.name, names, Path(folder))
    load_weights(model, path, sha256=weights.sha256, prefix=prefix, head=head, spare=spare, backbone=backbone)


def load_weights(
    model: nn.Module,
    path: Path,
    *,
    sha256: str | None = None,
    prefix: str = "",
    head: Collection[str] = (),
    spare: tuple[str, ...] = (),
    backbone: Backbone | None = None,
) -> WeightsReport:
    """Copy the weights in `path` (.safetensors, .pt or .pth) into `model`.

    The digest, whole or its beginning (`prefix`), is checked before a byte is parsed. The tensors named in `head` are
    left out if, and only if, they differ from the file's in the class count, and those that begin with a prefix in
    `spare`. A file of the `backbone` fills that part alone. Whatever else is missing, left over or of another shape raises
    ConfigError.
    """
    digest = file_digest(path)
    if sha256 is not None and digest != sha256:
        raise ConfigError(f"weights {path} have SHA-256 {digest}, but {sha256} was expected")
    if not digest.startswith(prefix):
        raise ConfigError(f"weights {path} have SHA-256 {digest}, but the file's name says {prefix}: it is damaged")
    own = model.state_dict()
    tensors = _named_as(own, _state_dict(_read(path), path))
    if backbone and backbone.is_file_of(tensors):
        dropped = set(backbone.unused) & tensors.keys()
        fresh = own.keys() - set(backbone.places.values())
        tensors = {backbone.places.get(key, key): t for key, t in tensors.items() if key not in dropped}
    else:
        dropped = fresh = _foreign_head(own, tensors, head) | {k for k in tensors if k.startswith(spare)}
        tensors = {key: tensor for key, tensor in tensors.items() if key not in dropped}
    copy_into(model, tensors, source=f"weights {path}", without=fresh)
    report = WeightsReport(digest, tuple(sorted(tensors)), tuple(sorted(dropped)))
    log.info(
        "loaded %d tensors from %s (sha256 %s); left out: %s",
        len(report.kept),
        path,
        digest,
        ", ".join(report.dropped) or "none, the head is kept",
    )
    return report


def named_weights(name: str, architectures: Sequence[str], folder: Path) -> tuple[Path, str]:
    """The file of weights that torchvision calls `name`, and the beginning of its SHA-256.

    `folder` is torch's hub cache, or what TORCH_HOME points to. Raises ConfigError for a name that torchvision does not
    have, weights of another architecture, and a file that is not there.
    """
    file = _published(name, architectures)
    places = _places(file, folder)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise ConfigError(f"model.weights.name: {name} is {file}, which is in none of {', '.join(map(str, places))}")
    return found, file.rpartition("-")[2].partition(".")[0]


def are_missing(wanted: Architecture, folder: str | None) -> bool:
    """Whether the file that `spec.vision.model.weights` names is not there; False where it names none."""
    weights = wanted.weights
    if weights is None or folder is None:
        return False
    if weights.name is None:
        return not Path(folder, str(weights.path).lstrip("/")).exists()
    file = _published(weights.name, [wanted.architecture])
    return not any(place.exists() for place in _places(file, Path(folder)))


def _published(name: str, architectures: Sequence[str]) -> str:
    """The name of the file that torchvision publishes them in."""
    try:
        known = [w for architecture in architectures for w in torchvision.models.get_model_weights(architecture)]
        default = torchvision.models.get_model_weights(architectures[0]).DEFAULT
        weights = default if name == DEFAULT_WEIGHTS else torchvision.models.get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise ConfigError(f"model.weights.name: torchvision has no weights {name!r}") from error
    if weights not in known:
        raise ConfigError(
            f"model.weights.name: {name} are not for {architectures[0]}, which has {', '.join(map(str, known))}"
        )
    return str(weights.url.rpartition("/")[2])


def _places(file: str, folder: Path) -> list[Path]:
    return [folder / "hub/checkpoints" / file, folder / "checkpoints" / file, folder / file]


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hex, read in pieces; ConfigError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"weights {path} cannot be read: {error.strerror}") from error


def copy_into(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], *, source: str, without: Collection[str] = ()
) -> None:
    """Copy tensors into the model's own by name, all or none; those in `without` stay as they are.

    Not `load_state_dict`: some networks refuse a dictionary that lacks torch's hidden version numbers, as every
    safetensors file does.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in tensors and k not in without and not k.endswith(_OPTIONAL)]
    unexpected = [key for key in tensors if key not in own]
    shapes = [
        f"{key} {_shape(tensor)} instead of {_shape(own[key])}"
        for key, tensor in tensors.items()
        if key in own and tensor.shape != own[key].shape
    ]
    if problems := _told(missing=missing, unexpected=unexpected, shape=shapes):
        raise ConfigError(f"{source} do not fit the network: {problems}")
    with torch.no_grad():
        for key, tensor in tensors.items():
            own[key].copy_(tensor)


def _told(limit: int = 5, **problems: list[str]) -> str:
    """Each kind of problem with its number and, five in all, its keys."""
    parts = []
    for kind, keys in problems.items():
        if keys:
            shown, limit = keys[:limit], max(0, limit - len(keys))
            parts.append(f"{kind} {len(keys)}" + (f" ({', '.join(shown)})" if shown else ""))
    return "; ".join(parts)


def _shape(tensor: torch.Tensor) -> str:
    return str(list(tensor.shape))


def _foreign_head(
    own: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], head: Collection[str]
) -> set[str]:
    """The head's keys if the file's head is for another number of classes and equal otherwise, else none."""
    pairs = [(own[key].shape, tensors[key].shape) for key in head if key in tensors]
    if len(pairs) < len(head) or all(ours == theirs for ours, theirs in pairs):
        return set()
    # Detectors have layers of a few numbers per class; the ratio is that of the class counts in all of them.
    ratios = {Fraction(theirs[0], ours[0]) for ours, theirs in pairs}
    same_otherwise = all(ours[1:] == theirs[1:] for ours, theirs in pairs)
    return set(head) if same_otherwise and len(ratios) == 1 else set()


def _read(path: Path) -> Any:
    """Parse a file without running code from it."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix in (".pt", ".pth"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own, down to those of zip and pickle
        raise ConfigError(f"weights {path} cannot be parsed: {_first_line(error)}") from error
    raise ConfigError(f"weights {path} must be a .safetensors, .pt or .pth file")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def _state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict inside a checkpoint, under the names of today's torchvision."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"weights {path} hold no state dict, which maps names to tensors")
    if strangers := [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]:
        raise ConfigError(f"weights {path} are no state dict: no tensor under {', '.join(strangers[:5])}")
    return {_current_name(str(key)): tensor for key, tensor in content.items()}


def _named_as(own: Collection[str], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Old names of detectors as the network has them."""

    def current(key: str) -> str:
        renamed = (give(match) for pattern, give in _DETECTORS_RENAMED if (match := pattern.fullmatch(key)))
        return key if key in own else next((name for name in renamed if name in own), key)

    return {current(key): tensor for key, tensor in tensors.items()}


def _current_name(key: str) -> str:
    key = key.removeprefix("module.")
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key
