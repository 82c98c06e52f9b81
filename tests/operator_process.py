"""The operator as a process of its own, as it runs in a pod, for tests that kill it."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kube import eventually

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OperatorProcess:
    """`python -m darkroom_operator` against a kubeconfig; its log is kept for a failing test to show."""

    def __init__(self, kubeconfig: Path, profiles: Path, log: Path, **environment: str) -> None:
        self.port = free_port()
        self.log = log
        self.environment = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "DARKROOM_PROFILES": str(profiles),
            "DARKROOM_METRICS_PORT": str(self.port),
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("operator", "trainer-image")),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self, *, ready: bool = True) -> Self:
        """Start, and wait until its caches are in step."""
        with self.log.open("ab") as sink:
            command = [sys.executable, "-m", "darkroom_operator"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=sink, stderr=sink)
        self.starts += 1
        if ready:
            eventually(self.is_ready, within=30, what=f"operator ready; log {self.log}")
        return self

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def keep_alive(self) -> None:
        """Start it if it does not run."""
        if not self.runs:
            self.start(ready=False)

    def is_ready(self) -> bool:
        assert self.runs, self.log.read_text()[-4000:]
        return self.fetch("/readyz")[0] == 200

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body of its HTTP endpoint; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        if self.process and self.runs:
            self.process.kill()
        self._wait()

    def stop(self) -> int:
        """SIGTERM, as kubelet does; returns the exit code."""
        if self.process and self.runs:
            self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def _wait(self) -> int:
        return self.process.wait(timeout=20) if self.process else 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
