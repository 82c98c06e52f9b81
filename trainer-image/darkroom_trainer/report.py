"""What a run says while it runs: lines for people, metrics.jsonl for tools, and facts for the termination message."""

import json
import os
import time
from pathlib import Path
from typing import Any

from darkroom_api.report import Artifact, Best, Metric, Reason, TerminationMessage

ENV_FACTS = "DARKROOM_FACTS_DIR"


def number(value: float) -> str:
    """A metric as a decimal string: six significant digits."""
    return f"{value:.6g}"


class RunLog:
    """Rank 0's voice; the other ranks only keep their facts."""

    def __init__(self, run_dir: Path, *, first: bool) -> None:
        self._first = first
        self._file = (run_dir / "metrics.jsonl").open("a") if first else None
        self._spoke = 0.0

    def interval(self, **values: Any) -> None:
        """Progress: every call goes to the file, a line every two seconds to people."""
        self._write("train", values)
        if self._first and time.monotonic() - self._spoke > 2.0:
            self._spoke = time.monotonic()
            say(
                f"epoch {values['epoch']:.2f}/{values['epochs']}  step {values['step']}/{values['steps']}  "
                f"loss {values['loss']:.4f}  lr {values['lr']:.2e}  {values['imagesPerSecond']:.0f} img/s  "
                f"eta {values['etaSeconds']:.0f} s"
            )

    def evaluation(self, split: str, epoch: int, metrics: dict[str, float]) -> None:
        """Metrics of a whole split."""
        self._write(split, {"epoch": epoch} | metrics)
        if self._first:
            say(f"{split:<5} epoch {epoch}  " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))

    def note(self, text: str) -> None:
        """A line for people."""
        if self._first:
            say(text)

    def _write(self, kind: str, values: dict[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps({"time": round(time.time(), 3), "kind": kind} | values) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Nothing more to say."""
        if self._file:
            self._file.close()


def say(text: str) -> None:
    """A line on standard output, at once."""
    print(text, flush=True)


class Facts:
    """What one rank would say if it ended now. Kept in a file, because a killed process says nothing any more."""

    def __init__(self, rank: int) -> None:
        folder = os.environ.get(ENV_FACTS)
        self._file = Path(folder, f"rank-{rank}.json") if folder else None
        self.message = TerminationMessage(reason=Reason.SOFTWARE_ERROR, exit_code=70, rank=rank)

    def update(self, **fields: Any) -> None:
        """Change some, and write all."""
        self.message = self.message.model_copy(update=fields)
        if self._file:
            staged = self._file.with_suffix(".new")
            staged.write_text(self.message.encode())
            staged.replace(self._file)


def read_facts(folder: Path) -> dict[int, TerminationMessage]:
    """Facts by rank, as far as the ranks got."""
    found = {}
    for file in folder.glob("rank-*.json"):
        if message := TerminationMessage.decode(file.read_text()):
            found[int(file.stem.split("-")[1])] = message
    return found


def metric_list(metrics: dict[str, float]) -> list[Metric]:
    """Metrics as the message carries them, at most sixteen."""
    return [Metric(name=name, value=number(value)) for name, value in metrics.items()][:16]


__all__ = ["Artifact", "Best", "Facts", "RunLog", "metric_list", "number", "read_facts", "say"]
