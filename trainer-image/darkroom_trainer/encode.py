"""Runs the frozen stages of a network once over a split, on all processes together, and keeps what comes out.

The key of a split is made of everything that its features depend on: the frozen weights, the preprocessing, the files.
Rank 0's node writes to the run's folder or a shared one; another node that does not see that folder keeps a copy of its
own for as long as it runs. Interrupted, it goes on from the last row that was kept, on any number of processes.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from darkroom_trainer.clock import now
from darkroom_trainer.data.sampler import EvaluationBatches
from darkroom_trainer.features import FORMAT, Facts, FeatureFile, Features
from darkroom_trainer.feed import Feed
from darkroom_trainer.parallel import Group, Pulse
from darkroom_trainer.stages import Stage
from darkroom_trainer.tasks.base import Batch, ImageSet

_NOTED_EVERY = 60.0
"""Seconds between two notes of how far it is; a kill loses as much."""


class FeatureCache:
    """Features by key below `folder`. Every process must call `get` and `drop` at the same place."""

    def __init__(self, folder: Path, group: Group, *, shared: bool, say: Callable[[str], None]) -> None:
        self._folder, self._group, self._shared, self._say = folder, group, shared, say
        self._copies: list[Path] = []

    def get(
        self, encoder: "Encoder", split: str, images: ImageSet, *, views: int, stop: Callable[[], bool]
    ) -> Features | None:
        """Read, or computed and kept; None if a process was told to leave meanwhile.

        Raises StorageError if there is no room for them.
        """
        group, rows = self._group, views * len(images)
        key = group.share(lambda: encoder.key(split, views))
        file = FeatureFile(self._folder / key, split)
        known = group.gather(file.facts())
        if all(facts is not None and facts.done == rows for facts in known):
            self._say(f"features of {split}: {rows} are there already, in {file.folder}")
            return file.open()
        self._say(f"features of {split}: {len(images)} images in {views} view(s) through {encoder.depth} frozen stages")
        if group.rank != group.local_rank:  # another node than rank 0's
            file = FeatureFile(Path(tempfile.gettempdir(), f"darkroom-{key}"), split)
            self._copies.append(file.folder)
        start = known[0] if group.world == group.local_world else None
        return file.open() if encoder.run(file, split, images, views=views, start=start, stop=stop) else None

    def drop(self) -> None:
        """Remove what this run has kept for itself; a folder of several runs stays."""
        if self._group.local_rank:
            return
        for folder in [self._folder] if self._group.leads and not self._shared else self._copies:
            shutil.rmtree(folder, ignore_errors=True)


class Encoder:
    """The stages before `first`, and the loader that feeds them."""

    def __init__(self, feed: Feed, stages: Sequence[Stage], first: int, *, batch: int) -> None:
        self._feed, self._frozen, self._batch = feed, stages[:first], batch

    @property
    def depth(self) -> int:
        return len(self._frozen)

    def key(self, split: str, views: int) -> str:
        """SHA-256 over all that a feature of the split depends on."""
        digest = sha256(f"{FORMAT}/{self._feed.precision.dtype}/{views}/".encode())
        digest.update(self._feed.task.pixels_fingerprint(split).encode())
        for stage in self._frozen:
            for name, tensor in sorted(stage.tensors().items()):
                digest.update(f"/{stage.name}/{name}/".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:32]

    @torch.no_grad()
    def run(
        self,
        file: FeatureFile,
        split: str,
        images: ImageSet,
        *,
        views: int,
        start: Facts | None,
        stop: Callable[[], bool],
    ) -> bool:
        """Compute and keep the rows that are not done yet; False if a process was told to leave meanwhile."""
        work = _Work(self._feed.group, len(images), batch=self._batch, views=views, start=start)
        loader = self._feed.batches(images, work.own)
        pulse, due = Pulse(self._feed.group), torch.zeros(1, dtype=torch.float64, device=self._feed.group.device)
        noted = now()
        for round_ in range(work.rounds):
            batch = next(loader) if round_ < len(work.own) else None
            if batch is not None:
                self._feed.corrupt.note(split, batch.corrupt)
            work.take(round_, batch, None if batch is None else self._encode(batch), file)
            self._feed.alive()
            if not pulse.tick():
                continue
            due[0] = float(self._feed.group.leads and now() - noted > _NOTED_EVERY)
            beat = pulse.beat(due, stop=stop())
            if beat.sums[0] > 0 or beat.stop:
                work.note(file)
                noted = now()
            if beat.stop:
                return False
        work.note(file)
        return True

    def _encode(self, batch: Batch) -> torch.Tensor:
        """[n, ...], as the first stage that learns takes it."""
        with self._feed.precision.autocast():
            features = self._feed.task.inputs(self._feed.place(batch))
            for stage in self._frozen:
                features = stage(features)
        return features.contiguous()


class _Work:
    """Who computes which row in which round, and what has come of it so far."""

    def __init__(self, group: Group, samples: int, *, batch: int, views: int, start: Facts | None) -> None:
        self._group, self._samples, self._batch, self._total = group, samples, batch, samples * views
        self._start = start.done if start else 0
        self._old, self._rounds_done, self._began = start, 0, now()
        self._ranks = [
            EvaluationBatches(samples, batch=batch, rank=rank, world=group.world, views=views, start=self._start)
            for rank in range(group.world)
        ]
        self.own = self._ranks[group.rank]
        self.rounds = self.own.rounds
        self._targets = start.targets if start else [-1] * samples
        self._corrupt = start.corrupt if start else {}
        self._fresh: tuple[dict[int, int], dict[str, str]] = ({}, {})
        self._rows: torch.Tensor | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = torch.float32

    def take(self, round_: int, batch: Batch | None, rows: torch.Tensor | None, file: FeatureFile) -> None:
        """One round of all processes: each node keeps the rows of all of them."""
        if batch is not None:
            self._remember(self.own[round_], batch)
        if not self._shape:
            self._agree(rows, file)
        padded = torch.zeros((self._batch, *self._shape), dtype=self._dtype, device=self._group.device)
        if rows is not None:
            padded[: len(rows)] = rows
        parts = self._group.all_gather(padded)
        if self._rows is not None:
            for draws, part in zip(self._ranks, parts, strict=True):
                refs = draws[round_] if round_ < len(draws) else []
                places = torch.tensor([ref.epoch * self._samples + ref.index for ref in refs], dtype=torch.int64)
                self._rows[places] = part[: len(refs)].cpu()
        self._rounds_done = round_ + 1

    def _agree(self, rows: torch.Tensor | None, file: FeatureFile) -> None:
        """A process without an image of its own learns the shape of a row from the others."""
        told = self._group.gather(None if rows is None else (tuple(rows.shape[1:]), rows.dtype))
        self._shape, self._dtype = next(shape for shape in told if shape is not None)
        if self._group.local_rank == 0:
            self._rows = file.reserve((self._total, *self._shape), self._dtype)

    def _remember(self, refs: Sequence[Any], batch: Batch) -> None:
        targets, corrupt = self._fresh
        names = iter(batch.corrupt)
        for ref, target, valid in zip(refs, batch.targets.tolist(), batch.valid.tolist(), strict=True):
            targets[ref.index] = target
            if not valid:
                corrupt[str(ref.index)] = next(names)

    def note(self, file: FeatureFile) -> None:
        """Write down what is done; every process must call this at the same place, and returns when it is written."""
        for targets, corrupt in self._group.gather(self._fresh):
            for index, target in targets.items():
                self._targets[index] = target
            self._corrupt |= corrupt
        self._fresh = ({}, {})
        if self._rows is not None:
            done = min(self._total, self._start + self._rounds_done * self._batch * self._group.world)
            seconds = (now() - self._began) * self._group.world + (self._old.seconds if self._old else 0.0)
            dtype = str(self._dtype).removeprefix("torch.")
            file.note(Facts(list(self._rows.shape), dtype, done, seconds, self._targets, self._corrupt))
        self._group.gather(None)
