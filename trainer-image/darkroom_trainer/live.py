"""Rank 0's line to the operator: posts the newest facts, and passes on what the operator wants.

A thread of its own, and nothing of it ever reaches the training but the command: whatever fails here is said once, waited
out, and forgotten. No torch here.
"""

import http.client
import json
import random
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Self
from urllib.parse import urlsplit

from darkroom_api import names
from darkroom_api.report import LiveReport, Reply, Standing, TerminationMessage
from darkroom_trainer.clock import Eta

TIMEOUT = 10.0
TRIES, RETRY_SECONDS = 3, 0.5
"""Of one report: the next connection may reach the replica that works."""


@dataclass(frozen=True)
class Pace:
    """Seconds between reports: with news; without, to hear what is wanted; after an evaluation; at most, after failures."""

    news: float = 5.0
    silence: float = 10.0
    urgent: float = 1.0
    failing: float = 60.0


class Line:
    """Where to report, and the thread that does. `tell` takes microseconds and never raises."""

    def __init__(
        self, url: str, token: Path, context: ssl.SSLContext, hear: Callable[[Reply], None], pace: Pace | None = None
    ) -> None:
        address = urlsplit(url)
        self._host, self._port, self._path = address.hostname or "", address.port or 443, address.path
        self._token, self._context, self._hear, self._pace = token, context, hear, pace or Pace()
        self._changed = threading.Condition()
        self._facts: dict[str, Any] | None = None
        self._news = self._urgent = self._closed = False
        self._sequence = self._failures = 0
        self._sent_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="live-reports", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, environ: Mapping[str, str], hear: Callable[[Reply], None]) -> Self | None:
        """From what the operator put into the environment; None if it takes no reports, or it cannot be understood."""
        url, token = environ.get(names.ENV_REPORT_URL), environ.get(names.ENV_REPORT_TOKEN_FILE)
        if not url or not token:
            return None
        try:
            context = ssl.create_default_context(cadata=environ.get(names.ENV_REPORT_CA))
            return cls(url, Path(token), context, hear)
        except (ValueError, OSError) as error:
            _say(f"no live reports: {error}")
            return None

    def tell(self, message: TerminationMessage, eta: Eta | None) -> None:
        """The newest facts; without an ETA they come from something rare, as an evaluation, and are sent at once."""
        facts = {name: getattr(message, name) for name in Standing.model_fields}
        facts["metrics"], facts["time"] = list(message.metrics), dict(message.time)
        facts |= {f"eta_{name}": None for name in ("seconds", "low_seconds", "high_seconds")}
        if eta:
            facts |= {"eta_seconds": _whole(eta.seconds), "eta_low_seconds": _whole(eta.low)}
            facts["eta_high_seconds"] = _whole(eta.high)
        with self._changed:
            before = self._facts or {}
            if eta is None:  # the last word on it is still good
                facts |= {name: before.get(name) for name in facts if name.startswith("eta_")}
                self._urgent = True
            self._facts, self._news = facts, True
            self._changed.notify()

    def close(self) -> None:
        """No more reports; does not wait for one that is under way."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._report()
            except Exception as error:  # a report is never worth a training, whatever is wrong with it
                self._failed(error)

    def _report(self) -> None:
        """Wait for the next report, and deliver it."""
        report = self._next()
        if report is None:
            return
        reply = self._deliver(report)
        if self._failures >= TRIES:
            _say("live reports get through again")
        self._failures = 0
        self._hear(reply)

    def _next(self) -> LiveReport | None:
        """Wait until a report is due; None once the line is closed."""
        with self._changed:
            while not self._closed:
                wait = self._sent_at + self._pause() - monotonic() if self._facts else None
                if self._facts and wait is not None and wait <= 0:
                    self._news = self._urgent = False
                    self._sent_at = monotonic()
                    self._sequence += 1
                    return LiveReport(sequence=self._sequence, **self._facts)
                self._changed.wait(wait)
            return None

    def _pause(self) -> float:
        if self._failures:
            return min(self._pace.failing, self._pace.news * 2.0 ** min(self._failures, 10)) * random.uniform(0.8, 1.0)  # noqa: S311
        if self._urgent:
            return self._pace.urgent
        return self._pace.news if self._news else self._pace.silence

    def _deliver(self, report: LiveReport) -> Reply:
        """Raises whatever went wrong at the last try."""
        body = json.dumps(report.to_wire()).encode()
        for _ in range(TRIES - 1):
            try:
                return self._post(body)
            except (OSError, http.client.HTTPException, _BusyError):
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, RETRY_SECONDS)
        return self._post(body)

    def _post(self, body: bytes) -> Reply:
        token = self._token.read_text(encoding="utf-8").strip()  # each time: kubelet renews it
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=self._context)
        with closing(connection):
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            text = response.read(64 * 1024)
        if response.status == 503:
            raise _BusyError(f"503: {text[:200]!r}")
        if response.status != 200:
            raise ValueError(f"{response.status}: {text[:200]!r}")
        return Reply.decode(text)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == TRIES:
            _say(f"live reports do not get through, which training does without ({type(error).__name__}: {error})")


class _BusyError(Exception):
    """This replica does not take reports now."""


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else min(max(round(seconds), 0), 2**53)


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # standard output may be gone
        print(text, flush=True)
