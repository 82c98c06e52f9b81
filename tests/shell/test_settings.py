"""What the environment says, and what is said when it is wrong."""

from dataclasses import fields
from pathlib import Path

import pytest

from darkroom_operator.shell.settings import Settings


def test_an_empty_environment_means_the_defaults():
    assert Settings.from_environment({}) == Settings()


def test_every_setting_can_be_set():
    given = {
        "namespaces": "a, b,",
        "profiles": "/p.yaml",
        "metrics_port": "9090",
        "object_series": "50",
        "object_series_seconds": "60",
        "reports_address": "darkroom.tools.svc:443",
        "reports_port": "9443",
        "reports_secret": "tools/reports",
        "tracing_endpoint": "http://collector:4318/v1/traces",
        "log_level": "DEBUG",
        "log_format": "plain",
        "workers": "3",
        "resync_seconds": "60",
        "watch_seconds": "30",
        "silence_seconds": "20",
        "stale_seconds": "50",
        "discovery_seconds": "30",
        "lease": "darkroom-system/darkroom",
        "lease_seconds": "30",
        "renew_seconds": "20",
        "retry_seconds": "5",
    }
    assert set(given) == {field.name for field in fields(Settings)}
    read = Settings.from_environment({f"DARKROOM_{name.upper()}": text for name, text in given.items()})
    assert (read.namespaces, read.profiles, read.metrics_port) == (("a", "b"), Path("/p.yaml"), 9090)
    assert all(getattr(read, name) != getattr(Settings(), name) for name in given)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("METRICS_PORT", "http", id="no number"),
        pytest.param("METRICS_PORT", "0", id="too small"),
        pytest.param("WORKERS", "1000", id="too large"),
        pytest.param("REPORTS_ADDRESS", "darkroom.tools.svc", id="no port"),
        pytest.param("REPORTS_SECRET", "reports", id="no namespace"),
        pytest.param("RESYNC_SECONDS", "nan", id="not a number"),
        pytest.param("LOG_LEVEL", "LOUD", id="unknown level"),
        pytest.param("LOG_FORMAT", "xml", id="unknown format"),
        pytest.param("LEASE", "darkroom", id="a lease without its namespace"),
        pytest.param("LEASE_SECONDS", "1.5", id="a lease counts whole seconds"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, text):
    with pytest.raises(ValueError, match=f"DARKROOM_{name}='{text}'"):
        Settings.from_environment({f"DARKROOM_{name}": text})


def test_a_leader_must_give_up_before_another_begins():
    with pytest.raises(ValueError, match="DARKROOM_RENEW_SECONDS < DARKROOM_LEASE_SECONDS"):
        Settings.from_environment({"DARKROOM_RENEW_SECONDS": "15"})


def test_health_outlives_one_watch_request_by_default():
    settings = Settings()
    assert settings.stale_seconds > settings.watch_seconds + settings.silence_seconds
