"""When a run's checkpoints are written, and what the user is told of them."""

from functools import partial
from typing import Any

import torch

from darkroom_trainer.checkpoint import Checkpoints, Saved
from darkroom_trainer.clock import now
from darkroom_trainer.host import Host
from darkroom_trainer.report import Reporter
from darkroom_trainer.state import Learner, Progress


class Keeper:
    """Rank 0 writes; every rank has a part in what is written, and knows what was.

    saves: checkpoints that this start has written.
    """

    def __init__(
        self, checkpoints: Checkpoints, host: Host, report: Reporter, learner: Learner, *, identity: dict[str, Any]
    ) -> None:
        self._checkpoints, self._report, self._learner, self._identity = checkpoints, report, learner, identity
        self._group, self._clock = host.group, host.clock
        self._saved: Saved | None = None
        self._saved_at, self._saved_state = now(), (-1, -1)
        self.saves = 0

    def resumed(self, saved: Saved, progress: Progress) -> None:
        """The run has just been read from a checkpoint: until something happens it need not be written again."""
        self._saved, self._saved_state = saved, (progress.step, progress.evaluated)
        self.tell(saved)

    def tell(self, saved: Saved) -> None:
        """Into this process's message."""
        self._report.keep_checkpoint(f"checkpoints/{saved.folder.name}", saved.sha256, saved.step)

    @property
    def age(self) -> float:
        """Seconds since the last checkpoint, or since the start."""
        return now() - self._saved_at

    def save(self, progress: Progress, *, wait: bool = False) -> None:
        """Every process calls it; nothing is written if nothing has happened since. wait: until it is on the disk."""
        with self._clock.spend("checkpoint"):
            self._save(progress, wait=wait)

    def _save(self, progress: Progress, *, wait: bool) -> None:
        state = (progress.step, progress.evaluated)
        write = self._last
        if state != self._saved_state:
            write = partial(self._write, progress, self._learner.tensors(), self._learner.counters(progress))
        if wait:
            self._saved = self._group.share(write)
        elif self._group.leads:
            self._saved = write()
        self._saved_state = state
        if self._saved:
            self.tell(self._saved)

    def _last(self) -> Saved | None:
        return self._saved

    def _write(self, progress: Progress, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> Saved:
        self.saves += 1
        saved = self._checkpoints.save(
            progress.step,
            tensors,
            counters,
            identity=self._identity,
            best_step=progress.best.step if progress.best else None,
        )
        self._saved_at = now()
        self._report.event("saved", f"saved {saved.folder.name}", step=saved.step)
        return saved

    def save_best(self, step: int) -> None:
        """The weights as they are evaluated and exported; every process calls it."""
        with self._clock.spend("checkpoint"):
            tensors = self._learner.best_tensors()
            if self._group.leads:
                self._checkpoints.save_best(step, tensors, identity=self._identity)

    @property
    def mean_seconds(self) -> float:
        """Of a checkpoint; 0 before there was one."""
        return self._clock.seconds()["checkpoint"] / max(1, self.saves)
