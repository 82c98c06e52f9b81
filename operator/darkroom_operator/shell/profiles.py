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
        self.current: dict[str, Profile] = {}

    def load(self) -> None:
        """Read the file if it differs from what was read last."""
        try:
            text = self._file.read_text()
            if text == self._text:
                return
            self._text = text
            self.current = parse_profiles(text)
        except (OSError, ValueError) as error:
            log.error("%s: %s; the last good profiles stay in force", self._file, error)
            self._metrics.profiles_ok.set(0)
            return
        log.info("profiles in force: %s", ", ".join(sorted(self.current)) or "none")
        self._metrics.profiles_ok.set(1)
        self._metrics.profiles_loaded.set(len(self.current))
        self._on_change()

    async def run(self) -> None:
        """Look at the file for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.load()
