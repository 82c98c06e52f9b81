"""When a run's checkpoints are written, and what the user is told of them."""

from typing import Any

from darkroom_trainer.checkpoint import Checkpoints, Saved
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.report import Reporter
from darkroom_trainer.state import Learner, Progress


class Keeper:
    """Rank 0 saves; every rank knows what was. saves: checkpoints that this start has written."""

    def __init__(
        self, checkpoints: Checkpoints, clock: Clock, report: Reporter, learner: Learner, *, identity: dict[str, Any]
    ) -> None:
        self._checkpoints, self._clock, self._report, self._learner = checkpoints, clock, report, learner
        self._identity = identity
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

    def save(self, progress: Progress) -> Saved:
        """The last one again if nothing has happened since."""
        state = (progress.step, progress.evaluated)
        if self._saved and self._saved_state == state:
            return self._saved
        self.saves += 1
        with self._clock.spend("checkpoint"):
            saved = self._checkpoints.save(
                progress.step,
                self._learner.tensors(),
                self._learner.counters(progress),
                identity=self._identity,
                best_step=progress.best.step if progress.best else None,
            )
        self._saved, self._saved_at, self._saved_state = saved, now(), state
        self.tell(saved)
        self._report.event("saved", f"saved {saved.folder.name}", step=saved.step)
        return saved

    def save_best(self, step: int) -> None:
        """The weights as they are evaluated and exported."""
        with self._clock.spend("checkpoint"):
            self._checkpoints.save_best(step, self._learner.best_tensors(), identity=self._identity)

    @property
    def mean_seconds(self) -> float:
        """Of a checkpoint; 0 before there was one."""
        return self._clock.seconds()["checkpoint"] / max(1, self.saves)
