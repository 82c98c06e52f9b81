"""What a run says: metrics.jsonl, log lines, and the facts that its launcher makes the termination message of.

No torch here: the launcher imports this module too.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from darkroom_api.report import Artifact, Best, ExitCode, Metric, Reason, TerminationMessage
from darkroom_trainer.files import replace_text

if TYPE_CHECKING:  # they need torch
    from darkroom_api.v1alpha1.vision import TrainerConfig
    from darkroom_trainer.data.sampler import Plan
    from darkroom_trainer.summary.bar import Bar
    from darkroom_trainer.summary.board import Board

METRICS_FILE = "metrics.jsonl"
_MOST_METRICS = 16  # of TerminationMessage.metrics
_LINE_SECONDS = 3.0


def decimal(value: float) -> str:
    """A number as the API writes it: at most 24 characters, no more digits than were measured."""
    return f"{value:.6g}"


@dataclass
class Facts:
    """What one worker process tells its launcher through a file, from its first instant to its last."""

    rank: int
    pid: int
    message: TerminationMessage
    training: bool = False
    nccl: bool = False
    """Whether its group speaks NCCL, whose watchdog aborts a process that lost a peer."""
    ended: bool = False
    at: float = field(default_factory=time.time)

    def write(self, folder: Path) -> None:
        """Replace this worker's file as a whole; the launcher may read at any time."""
        self.at = time.time()
        texts = {name: _readable(getattr(self.message, name)) for name in ("error", "log_tail")}
        content = {**vars(self), "message": self.message.model_copy(update=texts).to_wire()}
        replace_text(folder / f"worker-{self.pid}.json", json.dumps(content))

    @classmethod
    def read_all(cls, folder: Path) -> list[Self]:
        """By rank; a file that cannot be read is passed over, its worker is then judged by its exit code."""
        found = []
        for path in folder.glob("worker-*.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                content = json.loads(path.read_text(encoding="utf-8"))
                message = TerminationMessage.decode(json.dumps(content.pop("message")))
                if message:
                    found.append(cls(message=message, **content))
        return sorted(found, key=lambda facts: facts.rank)


def _readable(text: str | None) -> str | None:
    """Without the lone surrogates that Python makes of file names that are not UTF-8: no JSON parser takes them."""
    return text and text.encode(errors="replace").decode()


def running() -> TerminationMessage:
    """The message of a worker that has not ended yet: what is left if it is killed."""
    return TerminationMessage(reason=Reason.KILLED, exit_code=ExitCode.KILLED)


class Reporter:
    """Rank 0's voice; on the other ranks it keeps the same facts and is silent.

    run_dir None: facts only. Writing metrics.jsonl never stops a training: the first failure is said and that is all.
    """

    def __init__(self, message: TerminationMessage, *, run_dir: Path | None = None, speaks: bool = True) -> None:
        self.message = message
        self._path = run_dir / METRICS_FILE if run_dir and speaks else None
        self._speaks = speaks
        self._last_line = float("-inf")
        self._bar = _bar() if speaks else None
        self.board: Board | None = None
        """TensorBoard's files, where somebody wants them."""

    def say(self, text: str) -> None:
        if self._bar:
            self._bar.say(text)
        elif self._speaks:
            print(text, flush=True)

    def opening(
        self,
        plan: "Plan",
        config: "TrainerConfig",
        *,
        step: int,
        world: int,
        device: str,
        workers: int,
        carried: Mapping[str, float],
    ) -> None:
        """What is going to be done from `step` on, and by whom. carried: seconds by bucket that the clock began with."""
        self._append(
            {
                "event": "started",
                "step": step,
                "world": world,
                "device": device,
                "carried": carried,
                "pricePerHour": config.price_per_hour,
                "currency": config.currency,
                "recipe": config.vision.to_wire(),
            }
        )
        self.say(
            f"{plan.samples} images, {plan.epochs} epochs = {plan.steps} steps of {plan.batch} images in "
            f"{plan.micro_batches} micro-batches on {world} process(es), {device}, {workers} loader process(es) each"
        )
        if plan.micro_batches < world:
            self.say(
                f"{world - plan.micro_batches} process(es) have nothing to do: a step has only {plan.micro_batches} "
                "micro-batches; a smaller vision.microBatchSize from the start gives all of them work"
            )

    def progress(self, *, metrics: Mapping[str, float], always: bool = False, **facts: Any) -> bool:
        """One interval of training, at most every few seconds; whether it was reported. A progress bar has all of them."""
        if self._bar:
            self._bar.show(facts["step"], facts["steps"], progress_line(facts, metrics, steps=False))
        if not always and time.monotonic() - self._last_line < _LINE_SECONDS:
            return False
        self._last_line = time.monotonic()
        self._append({"event": "progress", **facts, "metrics": metrics})
        if self.board:
            self.board.progress(facts["step"], facts, metrics)
        if not self._bar:
            self.say(progress_line(facts, metrics))
        return True

    def evaluation(
        self, split: str, metrics: Mapping[str, float], *, epoch: int, step: int, best: bool, seconds: float
    ) -> None:
        """Metrics of a whole split, by names without its prefix."""
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        self._append({"event": "evaluation", "epoch": epoch, "step": step, "best": best, "metrics": named})
        if self.board:
            self.board.evaluation(step, named)
        figures = "  ".join(f"{name} {value:.4f}" for name, value in named.items())
        self.say(f"epoch {epoch}  {figures}  ({seconds:.1f} s){'  best so far' if best else ''}")
        self.keep_metrics(named)

    def event(self, event: str, text: str, **facts: Any) -> None:
        """Something that happens once: resumed, saved, skipped files."""
        self.note(event, **facts)
        self.say(text)

    def note(self, event: str, **facts: Any) -> None:
        """For metrics.jsonl alone."""
        self._append({"event": event, **facts})

    def close(self) -> None:
        """Before the process ends."""
        if self._bar:
            self._bar.close()
        if self.board:
            self.board.close()

    def keep_metrics(self, named: Mapping[str, float]) -> None:
        """Into the message: test before val before train, where there is no room for all."""
        known = {metric.name: metric.value for metric in self.message.metrics}
        known |= {name: decimal(value) for name, value in named.items() if len(name) <= 63}
        rank = {"test": 0, "val": 1}
        ordered = sorted(known.items(), key=lambda item: rank.get(item[0].partition("/")[0], 2))
        self.message.metrics = [Metric(name=name, value=value) for name, value in ordered[:_MOST_METRICS]]

    def keep_best(self, metric: str, value: float, epoch: int) -> None:
        self.message.best = Best(metric=metric, value=decimal(value), epoch=epoch)

    def keep_checkpoint(self, path: str, sha256: str, step: int) -> None:
        self.message.checkpoint = Artifact(path=path, sha256=sha256)
        self.message.checkpoint_step = step

    def _append(self, line: dict[str, Any]) -> None:
        if not self._path:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"at": round(time.time(), 3), **line}) + "\n")
        except OSError as error:
            self.say(f"{self._path} cannot be written ({error.strerror}); training goes on without it")
            self._path = None


def _bar() -> "Bar | None":
    """For who looks on: both streams end in a terminal. In a pod's log there are lines instead."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return None
    from darkroom_trainer.summary.bar import Bar

    return Bar()


def progress_line(facts: Mapping[str, Any], metrics: Mapping[str, float], *, steps: bool = True) -> str:
    """`epoch 3/30  step 210/2100  loss 0.412  lr 0.081  812 img/s  eta 41 s`."""
    parts = [
        f"epoch {facts['epoch']}/{facts['epochs']}",
        *([f"step {facts['step']}/{facts['steps']}"] if steps else []),
        f"loss {metrics['train/loss']:.4g}",
        f"lr {facts['learningRate']:.3g}",
    ]
    if facts.get("imagesPerSecond"):
        parts.append(f"{facts['imagesPerSecond']:.0f} img/s")
    if facts.get("etaSeconds") is not None:
        parts.append(f"eta {duration(facts['etaSeconds'])}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """`41 s`, `12 min`, `3 h 05 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def write_termination_message(message: TerminationMessage, path: Path | None) -> None:
    """To the file that kubelet reads, in one write: it is a mount of its own, so nothing can be renamed onto it."""
    if path is None:
        return
    data = message.encode().encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
