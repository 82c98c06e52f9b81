"""A sweep of real trainings on real images, with real live reports."""

from typing import Any

import pytest

from tests.cluster.conftest import VISION
from tests.kube import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.real, pytest.mark.timeout(600)]

SMALL = VISION | {"imageSize": 16, "schedule": {"epochs": 2}}


@pytest.fixture
def volumes(cluster, kube, namespace, digits) -> str:
    """The claims of a training; returns the namespace."""
    cluster.volume("digits", namespace=namespace, source=digits, read_only=True)
    cluster.volume("runs", namespace=namespace)
    return str(namespace)


def test_digits(kube, volumes):
    """Two learning rates, of which one learns nothing: it is pruned after an epoch, and the other's model is the result."""
    learning_rate = {
        "name": "lr",
        "path": "vision.optimizer.learningRate",
        "choice": {"values": ["0.002", "0.000000001"]},
    }
    template = {
        "vision": SMALL,
        "checkpoint": {"claim": "runs", "everySeconds": 30},
        "resourcesPerNode": {"cpu": "800m", "memory": "1500Mi"},
    }
    spec: dict[str, Any] = {
        "objectives": [{"metric": "val/top1"}],
        "parameters": [learning_rate],
        "algorithm": {"name": "Grid"},
        "pruning": {"threshold": {"lower": "0.3"}},
        "stopping": {"maxTrials": 5},
        "parallelism": 2,
        "trialTemplate": {"spec": template},
    }
    head = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TuningSweep", "metadata": {"name": "search"}}
    kube.create(head | {"spec": spec}, volumes)

    def status() -> dict[str, Any]:
        return kube.get("TuningSweep", volumes, "search").get("status", {})

    eventually(lambda: status().get("finished"), within=240, what=f"the end: {status()}")
    found = status()
    assert (found["state"], found["trials"]["summary"]) == ("Complete", "2 of 5, 1 pruned"), found
    assert found["best"]["parameters"] == {"lr": "0.002"}
    assert float(found["best"]["value"]) > 0.8
    assert found["best"]["outputs"]["model"].startswith("model/")
    (pruned,) = [row for row in found["ledger"] if row["result"] == "Pruned"]
    assert pruned["curve"].startswith("1:")
    trial = kube.get("TrainingJob", volumes, f"search-{pruned['number']:05d}")["status"]
    assert (trial["state"], trial["progress"]["epoch"]) == ("Complete", 1)
    assert trial["outputs"]["checkpoint"]
    assert "model" not in trial["outputs"]  # it saved and left, and exported nothing
