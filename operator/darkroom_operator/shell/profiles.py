"""The profiles file, read again whenever its content changes (a ConfigMap volume swaps a link)."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from darkroom_operator.core.profile import Profile, parse_profiles
from darkroom_operator.shell.metrics import Metrics

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0


class Profiles:
    """Profiles in force. A broken file leaves the last good ones, and is told in the log and in /metrics."""

    def __init__(self, file: Path, on_change: Callable[[], None], metrics: Metrics) -> None:
        self._file, self._on_change, self._metrics = file, on_change, metrics
        self._text: str | None = None
        self._complaint = ""
        self.current: dict[str, Profile] = {}

    def load(self) -> None:
        """Read the file if it differs from what was read last."""
        try:
            text = self._file.read_text()
            if text == self._text:
                return
            self._text, self._complaint = text, ""
            self.current = self._metrics.profiles = parse_profiles(text)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                self._text = None  # the same text is news when the file is back
            self._complain(str(error))
            return
        log.info("profiles in force: %s", ", ".join(sorted(self.current)) or "none")
        self._metrics.profiles_ok.set(1)
        self._metrics.profiles_loaded.set(len(self.current))
        self._on_change()

    def _complain(self, error: str) -> None:
        """Once for each error; the gauge stays at 0 until a good file comes."""
        if error != self._complaint:
            log.error("%s: %s; the last good profiles stay in force", self._file, error)
        self._complaint = error
        self._metrics.profiles_ok.set(0)

    async def run(self) -> None:
        """Look at the file for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.load()
