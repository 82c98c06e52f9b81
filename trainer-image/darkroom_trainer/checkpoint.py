"""Checkpoints that survive a kill at any instant, a full disk and a damaged file.

    checkpoints/step-00000123/weights.safetensors   the network's tensors as `model.*`, the moving average's as `ema.*`
    checkpoints/step-00000123/state.pt              optimizer, loss scaler, counters; read with weights_only
    checkpoints/step-00000123/manifest.json         sizes and SHA-256 of both; written last
    checkpoints/best-00000100/...                   weights of the best epoch, as they are evaluated and exported
    checkpoints/owner                               the process that may write here: the last one that opened the folder

A folder gets its name only when all of it is on the disk. Rank 0 alone reads and writes: shared storage may show other
nodes an older listing, and processes that resume from different steps would diverge without a word.
"""

import json
import logging
import os
import shutil
import socket
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from darkroom_trainer.errors import ConfigError, StorageError, is_full

log = logging.getLogger(__name__)

WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"
OWNER = "owner"
_TEMPORARY, _DOOMED = ".saving-", ".removing-"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says. identity: what a run must share with this one to continue it."""

    step: int
    files: dict[str, dict[str, Any]]
    identity: dict[str, Any] = field(default_factory=dict)
    best_step: int | None = None
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Raises OSError or ValueError for anything but a manifest of this format."""
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{folder / MANIFEST} is no manifest of format {FORMAT}")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"{folder / MANIFEST}: {error}") from error


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk; sha256 is that of its weights."""

    folder: Path
    step: int
    sha256: str


@dataclass(frozen=True)
class Parcel:
    """A checkpoint in memory, as rank 0 read it and shares it; the bytes agree with the manifest."""

    saved: Saved
    manifest: Manifest
    weights: bytes
    state: bytes | None

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors below `prefix`, on the CPU, without it."""
        tensors = safetensors.torch.load(self.weights)
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    def counters(self) -> dict[str, Any]:
        """Content of state.pt, on the CPU; loaded without running any code of the file's."""
        return torch.load(BytesIO(self.state or b""), map_location="cpu", weights_only=True)


class Checkpoints:
    """The folder `checkpoints` of a run; used by rank 0 only."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._name = f"process {os.getpid()} on {socket.gethostname()}, {os.urandom(4).hex()}"

    def open(self) -> None:
        """Make sure, before hours of training, that a checkpoint can be written; remove what killed saves left.

        From now on a process that opened the folder earlier is refused: on a node that was lost and came back, it would
        save, and prune, a course of the run that has been overtaken. Raises ConfigError with the folder's name.
        """
        claim = self._folder / f"{_TEMPORARY}owner-{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            claim.write_text(self._name, encoding="utf-8")
            _sync(claim)
            claim.rename(self._folder / OWNER)
            _sync(self._folder)
        except OSError as error:
            raise ConfigError(
                f"runDir: {self._folder} cannot be written: {error.strerror}; the claim of the run's output must be "
                "writable by the trainer's user"
            ) from error

    def save(
        self,
        step: int,
        tensors: dict[str, torch.Tensor],
        state: dict[str, Any],
        *,
        identity: dict[str, Any],
        best_step: int | None,
    ) -> Saved:
        """Write step-N, then remove all but the newest ones and the best that they speak of.

        Raises StorageError that names the folder; checkpoints that were there before are untouched then.
        """
        saved = self._write(self._free_name(step), step, tensors, state, identity=identity, best_step=best_step)
        self._prune(saved.folder.name)
        return saved

    def save_best(self, step: int, tensors: dict[str, torch.Tensor], *, identity: dict[str, Any]) -> Saved:
        """Write best-N. The best before goes when a checkpoint has been saved that knows of the new one."""
        name = f"best-{step:08d}"
        if (self._folder / name).exists():  # of an attempt that was killed before its checkpoint: none speaks of it
            self._remove(self._folder / name)
        return self._write(name, step, tensors, None, identity=identity, best_step=step)

    def newest(self) -> Parcel | None:
        """The newest checkpoint whose files agree with its manifest; a damaged one is passed over with a warning."""
        for folder in self._complete("step-"):
            try:
                return _read(folder)
            except (OSError, ValueError) as error:
                log.warning("checkpoint %s is damaged and passed over: %s", folder.name, error)
        return None

    def best(self, step: int) -> Parcel:
        """The best weights, of that step; raises StorageError if they are damaged or gone."""
        folder = self._folder / f"best-{step:08d}"
        try:
            return _read(folder)
        except (OSError, ValueError) as error:
            raise StorageError(f"the best weights in {folder} cannot be read: {error}") from error

    def _write(self, name: str, step: int, tensors: Any, state: Any, **facts: Any) -> Saved:
        temporary = self._folder / f"{_TEMPORARY}{name}-{os.getpid()}"
        try:
            self._check_owner()
            self._sweep()
            temporary.mkdir()
            safetensors.torch.save_file(_on_cpu(tensors), temporary / WEIGHTS)
            if state is not None:
                with (temporary / STATE).open("wb") as file:
                    torch.save(state, file)
            files = {path.name: _describe(path) for path in sorted(temporary.iterdir())}
            manifest = Manifest(step=step, files=files, **facts)
            (temporary / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
            for path in (*temporary.iterdir(), temporary):
                _sync(path)
            self._check_owner()
            temporary.rename(self._folder / name)
            _sync(self._folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self._check_owner()  # a newer one sweeps what is half written
            raise StorageError(f"checkpoint {name} could not be written to {self._folder}: {_why(error)}") from error
        return Saved(self._folder / name, step, files[WEIGHTS]["sha256"])

    def _check_owner(self) -> None:
        """Raises StorageError if another process has opened the folder since; where nothing can be read, it has not."""
        try:
            owner = (self._folder / OWNER).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return
        if owner != self._name:
            raise StorageError(f"{self._folder} was taken over by a later start of the run ({owner}): this one ends")

    def _free_name(self, step: int) -> str:
        """A step saved once more (damaged, or its evaluation was pending) gets a suffix: the first stays until later."""
        name = f"step-{step:08d}"
        return next(n for n in (name, *(f"{name}.{i:02d}" for i in range(1, 100))) if not (self._folder / n).exists())

    def _complete(self, prefix: str) -> list[Path]:
        """Folders with a manifest, newest first."""
        found = [path for path in self._folder.glob(f"{prefix}*") if (path / MANIFEST).is_file()]
        return sorted(found, key=lambda path: path.name, reverse=True)

    def _prune(self, newest: str) -> None:
        """What sorts after the newest was damaged: the run went back behind it, and nobody may count it as kept."""
        kept = [path for path in self._complete("step-") if path.name <= newest][: self._keep]
        wanted = {path.name for path in kept} | {
            f"best-{step:08d}" for step in map(_best_step, kept) if step is not None
        }
        for path in (*self._folder.glob("step-*"), *self._folder.glob("best-*")):
            if path.name not in wanted:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Renamed first, so that a half-removed folder is never taken for a checkpoint."""
        doomed = path.with_name(f"{_DOOMED}{path.name}-{os.getpid()}")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _sweep(self) -> None:
        for prefix in (_TEMPORARY, _DOOMED):
            for path in self._folder.glob(f"{prefix}*"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _read(folder: Path) -> Parcel:
    """Raises OSError or ValueError if a file is missing or is not the one that the manifest describes."""
    manifest = Manifest.read(folder)
    contents = {}
    for name, facts in manifest.files.items():
        contents[name] = (folder / name).read_bytes()
        if sha256(contents[name]).hexdigest() != facts["sha256"]:
            raise ValueError(f"{name} does not have the SHA-256 that {MANIFEST} says")
    saved = Saved(folder, manifest.step, manifest.files[WEIGHTS]["sha256"])
    return Parcel(saved, manifest, contents[WEIGHTS], contents.get(STATE))


def _best_step(folder: Path) -> int | None:
    try:
        return Manifest.read(folder).best_step
    except (OSError, ValueError):
        return None


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies: safetensors refuses tensors that share memory, as tied weights do."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {"sha256": digest.hexdigest(), "bytes": path.stat().st_size}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: BaseException) -> str:
    if is_full(error):
        return "no space left on its volume; the checkpoints before it are untouched"
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
