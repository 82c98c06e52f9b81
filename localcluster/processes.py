"""Daemons that outlive the command that starts them, found again by a mark in their environment.

A PID file can be lost (a kill between fork and write) or lie (the number was taken over by a stranger). The
environment that a program was started with can do neither: it is there from the first instruction to the last.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from localcluster.errors import ClusterError, StartError

_CLUSTER = "DARKROOM_LOCALCLUSTER"
_COMPONENT = "DARKROOM_LOCALCLUSTER_COMPONENT"
_PATIENCE = 30.0
_EXEC = 0.2


class Processes:
    """The daemons of the cluster whose state folder is given."""

    def __init__(self, state: Path) -> None:
        self._mark = f"{_CLUSTER}={state}".encode()
        self._logs = state / "logs"

    def log(self, component: str) -> Path:
        return self._logs / f"{component.replace('/', '.')}.log"

    def start(
        self,
        component: str,
        command: Sequence[str | Path],
        netns: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a daemon in a session of its own; `setsid --fork` leaves no child to this process."""
        # nsenter, unlike `ip netns exec`, keeps the mount namespace: kubelet and containerd must share one.
        enter = ["nsenter", f"--net=/run/netns/{netns}", "--"] if netns else []
        self._logs.mkdir(parents=True, exist_ok=True)
        mark = {_CLUSTER: self._mark.decode().partition("=")[2], _COMPONENT: component}
        with self.log(component).open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", *enter, *map(str, command)],
                env={**os.environ, **(environment or {}), **mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                check=True,
            )

    def pids(self, component: str | None = None) -> list[int]:
        """What runs now: of one component (its helpers included, a shim has its daemon's mark) or of all."""
        wanted = {self._mark} if component is None else {self._mark, f"{_COMPONENT}={component}".encode()}
        return [pid for pid, marks in _environments() if wanted <= marks]

    def _surely(self, component: str | None) -> list[int]:
        """Absent twice is absent: while a process executes a new program, its environment reads as empty."""
        if not (pids := self.pids(component)):
            time.sleep(_EXEC)
            pids = self.pids(component)
        return pids

    def running(self, component: str) -> bool:
        return bool(self._surely(component))

    def kill(self, component: str | None = None, sig: signal.Signals = signal.SIGKILL) -> None:
        """Signal until none is left; a new scan each round, for a dying daemon may still start helpers."""
        deadline = time.monotonic() + _PATIENCE
        while pids := self._surely(component):
            for pid in pids:
                self._signal(pid, sig)
            if time.monotonic() > deadline:
                raise ClusterError(f"processes {pids} do not end; look at them with `ps`, then run `down` again")
            time.sleep(0.02)

    def _signal(self, pid: int, sig: signal.Signals) -> None:
        """A PID may change hands between scan and signal; a pidfd may not, so look again once it is open."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if self._mark in _environment(pid):
                signal.pidfd_send_signal(descriptor, sig)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)

    def require(self, component: str) -> None:
        """Raise when the component isn't running: its log has the cause."""
        if not self.running(component):
            raise StartError(component, "ended", self.log(component))

    def await_ready(self, component: str, ready: Callable[[], bool], seconds: float) -> None:
        """Poll until ready() holds; a component that ended is reported at once."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.require(component)
            if time.monotonic() > deadline:
                raise StartError(component, f"was not ready after {seconds:.0f} s", self.log(component))
            time.sleep(0.05)


def _environment(pid: int) -> frozenset[bytes]:
    """Empty for a process that is gone, a zombie, a kernel thread or somebody else's."""
    try:
        return frozenset(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()


def _environments() -> Iterator[tuple[int, frozenset[bytes]]]:
    own = os.getpid()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != own and (marks := _environment(int(entry.name))):
            yield int(entry.name), marks
