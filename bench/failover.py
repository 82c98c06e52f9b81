"""Two operators and one lease, with the timings of the chart: seconds without a leader.

Measured from the signal until a TrainingJob that is created at that moment has its Job: leading, and working.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.stage import SPEC, stage
from localcluster import Cluster
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess

KILLS, TERMINATIONS = 5, 5
LEADS = 'leader_election_master_status{name="trainingjobs"} 1.0'


def run() -> dict[str, Any]:
    """Findings by name, in seconds."""
    with stage("none") as (cluster, kube, folder):
        return _measure(cluster, kube, folder)


def _measure(cluster: Cluster, kube: Kube, folder: Path) -> dict[str, Any]:
    pair = [_operator(cluster, folder, name) for name in ("a", "b")]
    try:
        for operator in pair:
            operator.start()
        kills = [_fail_over(kube, pair, f"kill-{n}", OperatorProcess.kill) for n in range(KILLS)]
        terminations = [_fail_over(kube, pair, f"term-{n}", OperatorProcess.stop) for n in range(TERMINATIONS)]
    finally:
        for operator in pair:
            operator.kill()
    return {"after_sigkill": _summary(kills), "after_sigterm": _summary(terminations)}


def _operator(cluster: Cluster, folder: Path, name: str) -> OperatorProcess:
    profiles, log = folder / "profiles.yaml", folder / f"{name}.log"
    return OperatorProcess(cluster.kubeconfig, profiles, log, DARKROOM_LEASE="default/darkroom")


def _fail_over(kube: Kube, pair: list[OperatorProcess], name: str, end: Callable[[OperatorProcess], Any]) -> float:
    """End the leader, wait for work to be done by the other, and bring the first one back to stand by."""

    def leader() -> OperatorProcess | None:
        return next((operator for operator in pair if LEADS in operator.fetch("/metrics")[1]), None)

    leading: OperatorProcess = eventually(leader, what="a leader")
    began = time.monotonic()
    end(leading)
    body = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": SPEC}
    kube.create(body, "default")
    eventually(lambda: kube.get("Job", "default", f"{name}-1"), within=60, what="the Job")
    seconds = time.monotonic() - began
    leading.start()
    return seconds


def _summary(seconds: list[float]) -> dict[str, Any]:
    return {"n": len(seconds), "median": round(statistics.median(seconds), 2), "worst": round(max(seconds), 2)}
