"""An operator on a node whose clock is an hour off: every deadline comes when it should, by the API server's clock."""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from darkroom_api import names
from darkroom_operator.core.clock import CONFIRMATIONS
from darkroom_operator.shell.clock import Clock
from localcluster.paths import cache_home
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess, free_port
from tests.report_server import Reporter
from tests.shell.conftest import PROFILES
from tests.shell.faults import FaultyProxy

HOUR = 3600


def heard(clock: Clock, ahead: float) -> None:
    """An answer of a server whose clock is ahead of ours."""
    date = datetime.now(UTC) + timedelta(seconds=ahead)
    clock.heard(format_datetime(date, usegmt=True), time.monotonic(), time.monotonic())


def test_a_skew_is_measured_and_told_once(caplog):
    clock = Clock()
    assert abs(clock.skew()) < 0.1
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            heard(clock, HOUR)
        assert clock.skew() == pytest.approx(-HOUR, abs=1.5)
        assert (clock.now() - datetime.now(UTC)).total_seconds() == pytest.approx(HOUR, abs=1.5)
        assert [record.getMessage()[:32] for record in caplog.records] == ["this node's clock is -3600 s off"]
        for _ in range(CONFIRMATIONS):
            heard(clock, 0)
        heard(clock, HOUR)
        assert clock.skew() == pytest.approx(0, abs=1.5)
        assert len(caplog.records) == 1


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 32 Jan 2026 00:00:00 GMT"])
def test_an_answer_without_a_date_says_nothing(date):
    clock = Clock()
    clock.heard(date, 0.0, 0.0)
    assert abs(clock.skew()) < 0.1


@pytest.fixture(params=[HOUR, -HOUR], ids=["ahead", "behind"])
def skewed(
    request: pytest.FixtureRequest, proxy: FaultyProxy, kube: Kube, namespace: str, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """An operator that takes live reports, whose wall clock is off; its monotonic clock is not."""
    profiles, port = tmp_path / "profiles.yaml", free_port()
    profiles.write_text(PROFILES)
    kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "reports"}}, namespace)
    environment = {
        "LD_PRELOAD": str(cache_home() / "lib/libfaketimeMT.so.1"),
        "FAKETIME": f"{request.param:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "DARKROOM_NAMESPACES": namespace,
        "DARKROOM_REPORTS_ADDRESS": f"127.0.0.1:{port}",
        "DARKROOM_REPORTS_PORT": str(port),
        "DARKROOM_REPORTS_SECRET": f"{namespace}/reports",
    }
    kubeconfig = proxy.kubeconfig(tmp_path / "kubeconfig")
    with OperatorProcess(kubeconfig, profiles, tmp_path / "operator.log", **environment) as operator:
        eventually(lambda: kube.get("Secret", namespace, "reports").get("data"), what="a certificate")
        yield operator


class Clocked:
    """A TrainingJob, and when the test saw what became of it."""

    def __init__(self, kube: Kube, namespace: str, name: str, **spec: Any) -> None:
        self.kube, self.namespace, self.name, self.began = kube, namespace, name, time.monotonic()
        meta = {"name": name, "namespace": namespace}
        body = {"apiVersion": names.API_VERSION, "kind": "TrainingJob", "metadata": meta}
        container = {"image": "localhost/mine:1", "command": ["train"]}
        kube.create(body | {"spec": {"container": container} | spec}, namespace)

    @property
    def status(self) -> dict[str, Any]:
        return (self.kube.get("TrainingJob", self.namespace, self.name) or {}).get("status", {})

    def pod(self, attempt: int) -> dict[str, Any]:
        selector = f"{names.LABEL_JOB}={self.name},{names.LABEL_ATTEMPT}={attempt}"
        return eventually(lambda: self.kube.list("Pod", self.namespace, selector), what=f"pod of {attempt}")[0]

    def fail(self, attempt: int) -> None:
        """Its pod ends as one whose trainer crashed: there are no nodes, so the test plays kubelet."""
        terminated = {"exitCode": 70, "startedAt": _now(), "finishedAt": _now()}
        container = {"name": "trainer", "state": {"terminated": terminated}, "image": "x", "imageID": "x"}
        status = {"phase": "Failed", "containerStatuses": [container | {"ready": False, "restartCount": 0}]}
        path = Kube.path("Pod", self.namespace, self.pod(attempt)["metadata"]["name"]) + "/status"
        self.kube.request("PATCH", path, {"status": status}, kind="application/merge-patch+json")

    def reaches(self, state: str) -> float:
        """Seconds from its creation until it did."""
        eventually(lambda: self.status.get("state") == state, what=f"{self.name}: {state}: {self.status}")
        return time.monotonic() - self.began


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.cluster
def test_deadlines_come_when_they_should(skewed, kube, namespace):
    """One job has time, two run out of it, one crashes and waits for its back-off; a report is taken, and a finished job kept."""
    patient = Clocked(kube, namespace, "patient", activeDeadlineSeconds=3000, startupDeadlineSeconds=3000)
    late = Clocked(kube, namespace, "late", startupDeadlineSeconds=3, ttlSecondsAfterFinished=3)
    busy = Clocked(kube, namespace, "busy", activeDeadlineSeconds=4, ttlSecondsAfterFinished=3000)
    crashing = Clocked(kube, namespace, "crashing", restart={"backoffSeconds": 4})
    crashing.fail(1)
    failed = time.monotonic()
    pod = Reporter(kube, patient.pod(1))
    eventually(lambda: pod.try_to_post({"sequence": 1, "step": 5, "steps": 20})[0] == 200, what="a report is taken")
    assert late.reaches("Failed") > 2
    ended = time.monotonic()
    assert busy.reaches("Failed") > 3
    eventually(lambda: crashing.status.get("attempt") == 2, what="the next attempt")
    assert time.monotonic() - failed > 3
    eventually(lambda: not late.status, what="late is deleted")
    assert time.monotonic() - ended > 1
    assert (busy.status["state"], patient.status["attempt"]) == ("Failed", 1)
    assert not patient.status["finished"]
    assert patient.status["progress"]["percent"] == 25
    assert "off the API server's" in skewed.log.read_text()
    skew = next(line for line in skewed.fetch("/metrics")[1].splitlines() if line.startswith("darkroom_clock_skew"))
    assert abs(float(skew.split()[1])) == pytest.approx(HOUR, abs=3)
