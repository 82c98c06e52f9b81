"""Who hangs, and where: each process's signs of life, and the stacks of those that give none.

A process that hangs in NCCL, gloo or the kernel runs no Python any more. Its stacks are written by faulthandler, whose
handler is C and needs no lock; signs of life are read by the launcher, which never waits for anybody. No torch here.
"""

import faulthandler
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from darkroom_api import names
from darkroom_trainer.report import Facts

SETUP_SECONDS = 3600.0
"""Without a sign of life before the first step: reading the data folder, loading weights, compiling the network."""
STACKS_SECONDS = 5.0
"""Wait for the stacks of all processes; one in the kernel's uninterruptible sleep answers never."""
_STACKS_FOLDER = "DARKROOM_STACKS"  # from a worker to its loader processes
_LONGEST_STEP = 5.0  # between two looks: a pod that was frozen, or a node that slept, does not count as silence
_TAIL = 1000  # characters of all stacks in the termination message
_stacks: IO[bytes] | None = None  # faulthandler keeps the descriptor only


def seconds_of(environ: Mapping[str, str]) -> float | None:
    """DARKROOM_STALL_SECONDS; None where it is not set, and nobody watches."""
    text = environ.get(names.ENV_STALL_SECONDS, "")
    return float(text) if text.isdigit() and int(text) > 0 else None


# --- In a worker, and in its loader processes ---


class Heart:
    """Signs of life of a worker, each one system call: `beat` when it turns to something else, `alive` when it gets on."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"heart-{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600)
        self._beats, self._steps, self._doing = 0, 0, "startup"

    def beat(self, doing: str) -> None:
        """It turns to another of TIME_BUCKETS."""
        self._beats, self._doing = self._beats + 1, doing
        os.pwrite(self._file, f"{self._beats} {self._steps} {self._doing:<16}".encode(), 0)

    def alive(self) -> None:
        """A step or an evaluation's batch is done: from now on `stallSeconds` holds."""
        self._steps += 1
        self.beat(self._doing)


def answer(folder: Path | None = None) -> None:
    """Write this process's stacks when the launcher asks. A worker names the folder, its loader processes inherit it."""
    global _stacks  # noqa: PLW0603 - one signal handler of the process, one file of its own
    if folder:
        os.environ[_STACKS_FOLDER] = str(folder)
    if place := os.environ.get(_STACKS_FOLDER):
        rank = os.environ.get("RANK", "0")
        _stacks = (Path(place) / f"stacks-{rank}-{os.getpid()}").open("wb")
        faulthandler.register(signal.SIGUSR1, file=_stacks, all_threads=True)


# --- In the launcher ---


class Silent(NamedTuple):
    """A worker without a sign of life: for how many seconds, and in which of TIME_BUCKETS it gave the last."""

    worker: Facts
    seconds: float
    doing: str


@dataclass(frozen=True)
class Stall:
    """A rank without a sign of life for too long, and where every process of this node stood."""

    rank: int
    error: str
    stacks: str
    """Innermost frames of each process, short enough for the termination message."""


class Watchdog:
    """Looks at the workers' hearts now and then. limit: seconds without a sign of life, from the first step on."""

    def __init__(
        self, folder: Path, limit: float, *, setup: float = SETUP_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._limit, self._setup, self._clock = folder, limit, max(limit, setup), clock
        self._known: dict[int, tuple[str, float]] = {}  # by pid: the heart as last read, seconds of silence since
        self._looked = clock()

    def silent(self, workers: Sequence[Facts]) -> Silent | None:
        """The worker that has been silent for too long, and longest."""
        passed = min(self._clock() - self._looked, _LONGEST_STEP)
        self._looked = self._clock()
        found = None
        for worker in workers:
            if worker.ended or not _exists(worker.pid):
                continue
            heart = self._heart(worker.pid)
            before, silence = self._known.get(worker.pid, (heart, 0.0))
            silence = silence + passed if heart == before else 0.0
            self._known[worker.pid] = heart, silence
            _, steps, doing = heart.split()
            if silence >= (self._limit if int(steps) else self._setup) and (found is None or silence > found.seconds):
                found = Silent(worker, silence, doing)
        return found

    def _heart(self, pid: int) -> str:
        """As the file has it; before its first beat, one that has not begun."""
        with suppress(OSError):
            text = (self._folder / f"heart-{pid}").read_text()
            if len(text.split()) == 3:
                return text
        return "0 0 startup"


def _exists(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


@dataclass(frozen=True)
class Stacks:
    """What one process said of its threads. rank: of the worker that it is, or loads for."""

    rank: int
    pid: int
    loader: bool
    text: str

    @property
    def title(self) -> str:
        return f"rank {self.rank}" + (f", loader process {self.pid}" if self.loader else "")

    @property
    def frames(self) -> list[str]:
        """Of the main thread, innermost first, as `fetch.py:54 in fetch`; faulthandler puts that thread last."""
        main = re.split(r"^(?:Current thread|Thread) .*\n", self.text, flags=re.MULTILINE)[-1]
        return [f"{Path(file).name}:{line} in {name}" for file, line, name in _FRAME.findall(main)]

    @property
    def idle(self) -> bool:
        """A loader process that waits for work."""
        return self.loader and any(frame.startswith("queues.py:") for frame in self.frames)


_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


def collect(folder: Path, workers: Sequence[Facts], *, within: float = STACKS_SECONDS) -> list[Stacks]:
    """Ask every process of the workers that still runs for its stacks; in the order of ranks, loader processes last."""
    asked = []
    running = {worker.pid for worker in workers if not worker.ended}
    ranks = {worker.rank for worker in workers if not worker.ended}
    for path in folder.glob("stacks-*"):
        _, rank, pid = path.name.split("-")
        if int(rank) in ranks:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(int(pid), signal.SIGUSR1)
                asked.append((int(rank), int(pid), path))
    _await([path for *_, path in asked], within)
    stacks = [Stacks(rank, pid, pid not in running, _text(path, pid)) for rank, pid, path in asked]
    return sorted(stacks, key=lambda process: (process.loader, process.rank, process.pid))


def _await(paths: Sequence[Path], within: float) -> None:
    """Until every file has something in it and none grows any more."""
    deadline, before = time.monotonic() + within, [0]
    while time.monotonic() < deadline:
        time.sleep(0.1)
        sizes = [path.stat().st_size for path in paths]
        if all(sizes) and sizes == before:
            return
        before = sizes


def _text(path: Path, pid: int) -> str:
    if text := path.read_text(errors="replace").strip():
        return text + "\n"
    state = ""
    with suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return f"no answer; the kernel has it in state {state or 'unknown'}\n"


def full(stacks: Sequence[Stacks]) -> str:
    """For the log: every thread of every process."""
    return "\n".join(f"--- {process.title} (pid {process.pid}) ---\n{process.text}" for process in stacks)


def short(stacks: Sequence[Stacks], room: int = _TAIL) -> str:
    """For the termination message: the innermost frames of each main thread, as many as fit, the same for all."""
    shown = [process for process in stacks if not process.idle]
    each = room // max(1, len(shown))
    return "\n".join(
        _cut([f"{process.title}:", *(process.frames or [process.text.strip()])], each) for process in shown
    )


def _cut(lines: Sequence[str], room: int) -> str:
    text = ""
    for line in lines:
        longer = f"{text}\n  {line}" if text else line
        if len(longer) >= room:
            break
        text = longer
    return text or lines[0][:room]


def describe(folder: Path, workers: Sequence[Facts], silent: Silent, *, within: float = STACKS_SECONDS) -> Stall:
    """What to say of a worker that is silent: asks every one for its stacks, and writes them all to the log."""
    worker, seconds, doing = silent
    stacks = collect(folder, workers, within=within)
    print(full(stacks), file=sys.stderr, flush=True)
    own = next((process.frames for process in stacks if process.rank == worker.rank and not process.loader), [])
    place = f", at {own[0]}" if own else ""
    error = f"no progress for {seconds:.0f} s: last seen in {doing}{place}"
    return Stall(worker.rank, error, short(stacks))
