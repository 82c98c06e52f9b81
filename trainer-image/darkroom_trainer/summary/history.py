"""metrics.jsonl read back: what counts of a run that may have been interrupted and continued."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom_trainer.report import METRICS_FILE

Line = Mapping[str, Any]


@dataclass
class History:
    """progress and evaluations: lines of metrics.jsonl by step, without what a crash undid; starts: one line each.

    time: seconds by bucket over all starts, of node 0's first process.
    """

    progress: list[Line] = field(default_factory=list)
    evaluations: list[Line] = field(default_factory=list)
    starts: list[Line] = field(default_factory=list)
    time: dict[str, float] = field(default_factory=dict)
    ended: Line | None = None

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(step, value), by step."""
        lines = [*self.progress, *self.evaluations]
        points = {int(line["step"]): float(line["metrics"][metric]) for line in lines if metric in line["metrics"]}
        return sorted(points.items())

    def metrics(self) -> list[str]:
        """Every metric that was measured, with its split: `train/loss`, `val/top1`."""
        return sorted({name for line in [*self.progress, *self.evaluations] for name in line["metrics"]})

    @property
    def best(self) -> Line | None:
        """The newest evaluation that was the best so far."""
        return next((line for line in reversed(self.evaluations) if line.get("best")), None)


def read_history(run_dir: Path) -> History:
    """Empty where nothing was written yet; a line that a kill cut short is passed over."""
    path = run_dir / METRICS_FILE
    return history_of(_lines(path)) if path.exists() else History()


def _lines(path: Path) -> Iterable[Line]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "event" in line:
                yield line


def history_of(lines: Iterable[Line]) -> History:
    """Lines in the order in which they were written."""
    history, spent = History(), dict[str, float]()
    for line in lines:
        match line["event"]:
            case "started":
                spent = _sum(history.time, _negative(line["carried"]))
                history.starts.append(line)
                history.progress = _until(history.progress, line["step"])
                history.evaluations = _until(history.evaluations, line["step"])
                history.ended = None
            case "progress":
                history.progress.append(line)
                history.time = _sum(spent, line["time"])
            case "evaluation":
                history.evaluations = [*_others(history.evaluations, line), line]
            case "ended":
                history.ended = line
                history.time = _sum(spent, line["time"])
    return history


def _until(lines: Sequence[Line], step: int) -> list[Line]:
    """What a checkpoint of that step knows: the rest was lost and is done again."""
    return [line for line in lines if line["step"] <= step]


def _others(lines: Sequence[Line], line: Line) -> list[Line]:
    """Without an earlier evaluation of the same split and step, which a restart may repeat."""
    key = (line["step"], set(line["metrics"]))
    return [other for other in lines if (other["step"], set(other["metrics"])) != key]


def _negative(seconds: Mapping[str, float]) -> dict[str, float]:
    return {bucket: -value for bucket, value in seconds.items()}


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {
        bucket: one.get(bucket, 0.0) + other.get(bucket, 0.0) for bucket in [*one, *(b for b in other if b not in one)]
    }
