"""Sweeps on a real control plane: trials are TrainingJobs, whose pods KWOK plays."""

import json
from typing import Any

import pytest

from darkroom_api import names
from tests.controlplane.sweeps import Search
from tests.kube import eventually
from tests.operator_process import OperatorProcess

pytestmark = pytest.mark.cluster


@pytest.fixture
def search(kube, operator: OperatorProcess, namespace: str) -> Any:
    """Makes the test's sweep."""
    return lambda **spec: Search(kube, namespace, **spec)


def test_from_apply_to_the_best_parameters(search):
    sweep = search()
    sweep.play(lambda: sweep.status.get("finished"))
    status = sweep.status
    assert (status["state"], sweep.ready[0]) == ("Complete", "MaxTrialsReached"), status
    assert status["trials"]["summary"] == "4 of 4"
    assert [row["number"] for row in status["ledger"]] == [0, 1, 2, 3]
    best = max(status["ledger"], key=lambda row: float(row["values"][0]))
    assert (status["best"]["job"], status["best"]["parameters"]) == (
        f"search-{best['number']:05d}",
        best["parameters"],
    )
    job = sweep.trials()[status["best"]["job"]]
    env = {variable["name"]: variable["value"] for variable in job["spec"]["container"]["env"]}
    assert env == {"LR": best["parameters"]["lr"], "WIDTH": best["parameters"]["width"]}
    assert job["metadata"]["ownerReferences"][0]["uid"] == sweep.body["metadata"]["uid"]
    assert json.loads(job["metadata"]["annotations"][names.ANNOTATION_PARAMETERS]) == best["parameters"]
    sweep.edit(stopping={"maxTrials": 5})
    eventually(lambda: "search-00004" in sweep.trials(), what="one more trial")
