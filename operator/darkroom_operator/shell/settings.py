"""What the operator is told by its environment; the chart sets it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Defaults suit a pod of the chart; DARKROOM_<NAME> in the environment overrides each."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to serve, comma-separated; empty: the whole cluster."""
    profiles: Path = field(default_factory=lambda: Path("/etc/darkroom/profiles.yaml"))
    """The profiles file; it is read again when it changes."""
    metrics_port: int = 8080
    """Port of /metrics, /healthz and /readyz."""
    object_series: int = 0
    """TrainingJobs, and TuningSweeps, that have series of their own in /metrics, at most; 0: none."""
    object_series_seconds: float = 900.0
    """They have them for so long after their end."""
    reports_address: str = ""
    """`host:port` where training pods reach the live reports of this operator; empty: it takes none."""
    reports_port: int = 8443
    """Port that it listens on for them, with TLS."""
    reports_secret: str = "darkroom-system/darkroom-reports"  # noqa: S105
    """`namespace/name` of the Secret that holds authority and certificate; it must exist, and is filled by the operator."""
    tracing_endpoint: str = ""
    """URL that takes OTLP over HTTP, mostly https://.../v1/traces; empty: no traces of finished jobs are sent."""
    log_level: str = "INFO"
    log_format: str = "json"
    """`json`: an object a line; `plain`: for a terminal."""
    workers: int = 8
    """Jobs that are reconciled at the same time."""
    resync_seconds: float = 600.0
    """Every job is looked at again this often, whether or not something happened."""
    discovery_seconds: float = 60.0
    """Between two looks at which queueing systems and gang schedulers the API server has the objects of."""
    watch_seconds: float = 120.0
    """Life of one watch request; a stream that does not come back after it counts as dead."""
    silence_seconds: float = 70.0
    """A stream without a line or bookmark for this long is opened anew; the API server sends one every minute."""
    stale_seconds: float = 200.0
    """/healthz turns red when a stream has been silent for this long."""
    lease: str = ""
    """Lease of the leader election, as namespace/name; empty: no election, for an operator that runs alone."""
    lease_seconds: int = 15
    """Other operators keep off for this long after the leader's last renewal."""
    renew_seconds: float = 10.0
    """A leader that could not renew for this long writes no more, and ends."""
    retry_seconds: float = 2.0
    """Between two renewals, and between two looks of an operator that stands by."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read DARKROOM_*; ValueError names the variable."""
        readers: dict[str, Callable[[str], Any]] = {
            "namespaces": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
            "profiles": Path,
            "metrics_port": _between(int, 1, 65535),
            "object_series": _between(int, 0, 10_000),
            "object_series_seconds": _between(float, 0, 604_800),
            "reports_address": _pair(":"),
            "reports_port": _between(int, 1, 65535),
            "reports_secret": _pair("/"),
            "tracing_endpoint": _url,
            "log_level": _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
            "log_format": _one_of("json", "plain"),
            "workers": _between(int, 1, 256),
            "resync_seconds": _between(float, 1, 86400),
            "discovery_seconds": _between(float, 0.1, 86400),
            "watch_seconds": _between(float, 1, 3600),
            "silence_seconds": _between(float, 0.1, 3600),
            "stale_seconds": _between(float, 0.1, 86400),
            "lease": _lease,
            "lease_seconds": _between(int, 1, 3600),
            "renew_seconds": _between(float, 0.1, 3600),
            "retry_seconds": _between(float, 0.1, 3600),
        }
        given = {}
        for name, read in readers.items():
            variable = f"DARKROOM_{name.upper()}"
            if text := environment.get(variable, ""):
                try:
                    given[name] = read(text)
                except ValueError as error:
                    raise ValueError(f"{variable}={text!r}: {error}") from None
        settings = cls(**given)
        if not settings.retry_seconds < settings.renew_seconds < settings.lease_seconds:
            raise ValueError("DARKROOM_RETRY_SECONDS < DARKROOM_RENEW_SECONDS < DARKROOM_LEASE_SECONDS must hold")
        return settings


def _between(kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        number = kind(text)
        if not low <= number <= high:
            raise ValueError(f"must be from {low} to {high}")
        return number

    return read


def _lease(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ValueError("must be namespace/name")
    return text


def _url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("must be an address such as http://collector.example:4318/v1/traces")
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return read


def _pair(separator: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        before, _, after = text.rpartition(separator)
        if not before or not after:
            raise ValueError(f"must be two names with {separator!r} between them")
        return text

    return read
