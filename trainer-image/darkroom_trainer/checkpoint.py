"""Checkpoints that a kill at any moment cannot spoil.

A checkpoint is a folder `step-00000123` with the weights (safetensors), the rest of the state (a torch file that loads with
weights_only) and a manifest of digests. It is written under another name, flushed to the disk, and renamed: it is there whole or
not at all. The newest whose digests hold is the one to resume from; a damaged one is passed over with a warning.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from darkroom_api.report import Artifact
from darkroom_trainer.errors import ConfigError, TrainerError
from darkroom_trainer.report import say

MANIFEST, WEIGHTS, STATE = "manifest.json", "weights.safetensors", "state.pt"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A complete one on disk."""

    folder: Path
    step: int

    def load(self) -> tuple[Tensors, dict[str, Any]]:
        """Weights by name on the CPU, and the rest of the state."""
        state = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
        return load_file(self.folder / WEIGHTS), state


class Checkpoints:
    """The folder `checkpoints` of a run. Only rank 0 writes."""

    def __init__(self, run_dir: Path, keep: int) -> None:
        self._run_dir, self._folder, self._keep = run_dir, run_dir / "checkpoints", keep

    def prepare(self) -> None:
        """Make the folder and sweep what killed saves left; ConfigError if nothing can be written there."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for leftover in self._folder.glob(".saving-*"):
                shutil.rmtree(leftover)
            probe = self._folder / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"checkpoint: cannot write to {self._folder}: {error.strerror}; "
                "is spec.checkpoint.claim read-only, or does it belong to another user?"
            ) from error

    def newest(self) -> Checkpoint | None:
        """The newest complete one."""
        for folder in sorted(self._folder.glob("step-*"), reverse=True):
            if problem := _damage(folder):
                say(f"checkpoint {folder.name} is damaged ({problem}); trying the one before")
                continue
            return Checkpoint(folder, int(folder.name.split("-")[1]))
        return None

    def at(self, step: int) -> Checkpoint:
        """The one that rank 0 chose; ConfigError where this node cannot see it."""
        folder = self._folder / _name(step)
        if not (folder / MANIFEST).exists():
            raise ConfigError(f"checkpoint: {folder} is not there on this node: the claim must be shared by all nodes")
        return Checkpoint(folder, step)

    def save(self, step: int, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> Artifact:
        """Write one, and drop the oldest beyond `keep`. A full disk is a TrainerError; the older ones are untouched."""
        final = self._folder / _name(step)
        digest = self._write(final, weights, state)
        for old in sorted(self._folder.glob("step-*"))[: -self._keep]:
            shutil.rmtree(old)
        return Artifact(path=str(final.relative_to(self._run_dir)), sha256=digest)

    def save_best(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Keep the best weights beside the newest."""
        self._write(self._folder / "best", weights, state)

    def best(self) -> Tensors | None:
        """The best weights, if they are whole."""
        folder = self._folder / "best"
        return load_file(folder / WEIGHTS) if folder.exists() and not _damage(folder) else None

    def _write(self, final: Path, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> str:
        staged = self._folder / f".saving-{final.name}"
        try:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, staged / WEIGHTS)
            torch.save(dict(state), staged / STATE)
            digests = {file: _flushed_digest(staged / file) for file in (WEIGHTS, STATE)}
            (staged / MANIFEST).write_text(json.dumps({"files": digests}))
            _flushed_digest(staged / MANIFEST)
            _flush(staged)
            if final.exists():  # a rename does not replace a folder that has something in it
                shutil.rmtree(final)
            staged.rename(final)
            _flush(self._folder)
        except Exception as error:  # torch and safetensors wrap the system's error in their own
            shutil.rmtree(staged, ignore_errors=True)
            reason = "the disk is full" if _is_full(error) else str(error)
            raise TrainerError(
                f"checkpoint: cannot save to {final}: {reason}; earlier checkpoints are intact"
            ) from error
        return digests[WEIGHTS]


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        bad = [name for name, digest in files.items() if _digest(folder / name) != digest]
    except (OSError, ValueError, KeyError) as error:
        return str(error)
    return f"digest of {bad[0]} differs" if bad else None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flushed_digest(file: Path) -> str:
    """Digest of a file that is on the disk, not only in memory."""
    _flush(file)
    return _digest(file)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if "No space left" in str(error) or "File too large" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
