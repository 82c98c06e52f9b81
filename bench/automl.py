"""From a labelled folder to an exported model with no other input: `auto` on scikit-learn's digits, ten minutes of CPU.

A real cluster (localcluster, one node), the operator from its chart, one trial at a time on one core. What counts is the last
training's accuracy on images that neither a training nor the choice between them saw, and the wall clock of the whole sweep.
"""

import os
import time
from typing import Any

from localcluster import Cluster
from scripts import demo
from tests.kube import Kube

NAMESPACE = "bench-automl"
MINUTES = 10
SWEEP = {
    "apiVersion": "darkroom.dev/v1alpha1",
    "kind": "TuningSweep",
    "metadata": {"name": "digits"},
    "spec": {
        "auto": {
            "data": {"claim": "digits"},
            "quality": "Fast",
            "budget": {"maxDuration": f"{MINUTES}m"},
            "checkpoint": {"claim": "runs"},
            "resourcesPerNode": {"cpu": "1", "memory": "2Gi"},
        },
        "algorithm": {"seed": 7},
    },
}


def run() -> dict[str, Any]:
    """What the sweep came to."""
    cluster = Cluster(NAMESPACE)
    try:
        demo.install(demo.embedded(NAMESPACE, NAMESPACE))
        kube = Kube(cluster.kubeconfig)
        kube.create(SWEEP, NAMESPACE)
        return _findings(kube, _finished(kube))
    finally:
        cluster.down()


def _finished(kube: Kube) -> dict[str, Any]:
    deadline = time.monotonic() + 2 * 60 * MINUTES
    while time.monotonic() < deadline:
        status: dict[str, Any] = kube.get("TuningSweep", NAMESPACE, "digits").get("status", {})
        if status.get("finished"):
            return status
        time.sleep(2)
    raise TimeoutError(f"the sweep has not ended: {status}")


def _findings(kube: Kube, status: dict[str, Any]) -> dict[str, Any]:
    if status["state"] != "Complete":
        raise AssertionError(f"the sweep failed: {status['conditions']}")
    refit = kube.get("TrainingJob", NAMESPACE, status["refit"]["job"])["status"]
    metrics = {metric["name"]: float(metric["value"]) for metric in refit["progress"]["metrics"]}
    began, ended = (
        time.mktime(time.strptime(status[key], "%Y-%m-%dT%H:%M:%SZ")) for key in ("startTime", "completionTime")
    )
    return {
        "cpus_on_machine": os.cpu_count(),
        "load_average_at_end": os.getloadavg()[0],
        "minutes_given": MINUTES,
        "minutes_taken": round((ended - began) / 60, 2),
        "trials": status["trials"]["summary"],
        "ledger": [
            {"model": row["parameters"]["model"], "result": row["result"], "top1": (row.get("values") or [None])[0]}
            for row in status["ledger"]
        ],
        "best_parameters": status["best"]["parameters"],
        "best_trial_val_top1": float(status["best"]["value"]),
        "refit_val_top1": float(refit["best"]["value"]),
        "refit_test_top1": metrics["test/top1"],
        "exported_model": refit["outputs"]["model"],
    }
