"""Sweeps on a real control plane: trials are TrainingJobs, whose pods KWOK plays."""

import json
from typing import Any

import pytest

from darkroom_api import names
from darkroom_api.report import Reason
from tests.controlplane.sweeps import Search
from tests.kube import eventually
from tests.operator_process import OperatorProcess
from tests.report_server import Reporter

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


def reports(sweep: Search, trial: str, sequence: int, epoch: int, value: str) -> dict[str, Any]:
    """A live report of a trial's pod, and what it is answered."""
    pod = Reporter(sweep.kube, sweep.pod(trial))
    metrics = [{"name": "val/top1", "value": value}]
    report = {"sequence": sequence, "epoch": epoch, "epochs": 9, "step": epoch * 10, "steps": 90, "metrics": metrics}
    return eventually(lambda: (said := pod.try_to_post(report))[0] == 200 and said[1], within=60, what="an answer")


def test_a_hopeless_trial_hears_it_in_the_answer_to_a_report(search):
    sweep = search(pruning={"asha": {"minEpochs": 1, "reductionFactor": 2}}, template={"profile": "patient"})
    eventually(lambda: len(sweep.running()) == 2, within=60, what=f"two trials: {sweep.status}")
    assert reports(sweep, "search-00000", 1, 1, "0.9")["action"] == "continue"
    eventually(lambda: sweep.trials()["search-00000"]["status"].get("curve"), what="the value is stored")
    reports(sweep, "search-00001", 1, 1, "0.1")
    sequence = iter(range(2, 1000))
    answer = eventually(
        lambda: (said := reports(sweep, "search-00001", next(sequence), 1, "0.1"))["action"] == "prune" and said,
        within=60,
        what="told to leave",
    )
    assert "rung 1: 0.1 is number 2 of 2" in answer["reason"]
    assert reports(sweep, "search-00000", 2, 2, "0.91")["action"] == "continue"
    sweep.end("search-00001", reason=Reason.PRUNED, val_top1="0.1")
    row = eventually(lambda: sweep.status.get("ledger"), within=60, what=f"recorded: {sweep.status}")[0]
    assert (row["number"], row["result"], row["curve"]) == (1, "Pruned", "1:0.1")
    trial = sweep.trials()["search-00001"]["status"]
    assert (trial["state"], trial["restarts"], trial["attempts"][0]["reason"]) == ("Complete", 0, "Pruned")
    eventually(lambda: "search-00002" in sweep.trials(), what="the next trial")


def test_trials_of_a_suspended_sweep_keep_their_numbers(search, kube, namespace):
    sweep = search()
    eventually(lambda: len(sweep.running()) == 2, within=60, what="two trials")
    sweep.edit(suspend=True)
    sweep.reaches("Suspended")
    assert {job["status"]["state"] for job in sweep.trials().values()} == {"Suspended"}
    sweep.edit(suspend=False)
    eventually(lambda: len(sweep.running()) == 2, within=60, what="both again")
    assert sorted(sweep.trials()) == ["search-00000", "search-00001"]
    assert [job["status"]["attempt"] for job in sweep.trials().values()] == [2, 2]


def test_a_good_enough_trial_ends_the_search_and_is_refitted(search):
    """The other trial never reported, so its pod is made to leave; expired trials go once they are on record."""
    objectives = [{"metric": "val/top1", "target": "0.9"}]
    sweep = search(objectives=objectives, refit={}, template={"ttlSecondsAfterFinished": 0})
    eventually(lambda: len(sweep.running()) == 2, within=60, what="two trials")
    sweep.end("search-00000", val_top1="0.95")
    status = sweep.reaches("Refitting")
    assert [row["result"] for row in status["ledger"]] == ["Succeeded", "Stopped"]
    assert sweep.ready[0] == "Refitting"
    eventually(lambda: "search-refit-00000" in sweep.running(), within=60, what="the refit runs")
    eventually(lambda: "search-00001" not in sweep.trials(), what="the stopped trial is deleted")
    sweep.end("search-refit-00000", val_top1="0.97")
    status = sweep.reaches("Complete")
    assert sweep.ready == ("TargetReached", "trial 0: val/top1 is 0.95, 0.9 is wanted")
    assert (status["refit"]["state"], status["best"]["trial"]) == ("Complete", 0)
    assert "search-00000" in sweep.trials()


def test_a_name_that_is_taken_stalls_the_sweep(search, kube, namespace):
    taken = {"metadata": {"name": "search-00000"}, "spec": {"container": {"image": "theirs:1"}, "suspend": True}}
    kube.create({"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", **taken}, namespace)
    sweep = search()
    sweep.reaches("Stalled")
    assert sweep.ready[0] == "NameTaken"
    assert sweep.trials() == {}
    kube.delete("TrainingJob", namespace, "search-00000")
    eventually(lambda: "search-00000" in sweep.trials(), within=60, what="it goes on once the name is free")


def test_metrics(search, operator: OperatorProcess, namespace):
    sweep = search(stopping={"maxTrials": 1})
    sweep.play(lambda: sweep.status.get("finished"))
    _, text = operator.fetch("/metrics")
    assert f'darkroom_trials_total{{algorithm="TPE",namespace="{namespace}",result="Succeeded"}} 1.0' in text
    assert f'darkroom_tuningsweeps{{namespace="{namespace}",state="Complete"}} 1.0' in text
    assert 'workqueue_depth{name="tuningsweeps"}' in text
