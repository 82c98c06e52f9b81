"""What becomes of a sweep: from the first trial to the last word."""

import json
from typing import Any

import pytest

from darkroom_api import names
from darkroom_operator.core.types import Refusal
from tests.core.sweep_world import SPEC, SweepWorld

SMALL = [{"name": "width", "env": "WIDTH", "int": {"min": 1, "max": 3}}]
ASHA = {"asha": {"minEpochs": 1, "reductionFactor": 3}}


def vision(**changes: Any) -> dict[str, Any]:
    """A sweep over the built-in trainer."""
    model = {"name": "model", "path": "vision.model.architecture", "choice": {"values": ["resnet18", "convnext_tiny"]}}
    template = {"vision": {"data": {"claim": "x"}, "model": {"architecture": "vgg16"}, "imageSize": 64}}
    return {"parameters": [model], "trialTemplate": {"spec": template}, "stopping": {"maxTrials": 2}} | changes


# --- Trials ---


def test_the_first_look_makes_as_many_trials_as_may_run():
    world = SweepWorld(parallelism=3)
    world.settle()
    assert world.made == ["search-00000", "search-00001", "search-00002"]
    assert (world.status["state"], world.ready) == ("Running", ("Searching", "3 of 3 trials run"))
    assert world.status["trials"]["summary"] == "0 of 6, 3 running"
    assert [event.note for event in world.events if event.reason == "TrialsStarted"] == ["created trials 0, 1, 2"]


def test_a_trial_is_a_training_job_of_the_sweep():
    world = SweepWorld(parallelism=1, algorithm={"name": "NSGAII", "seed": 7})
    world.settle()
    trial = world.jobs["search-00000"]
    meta = trial["metadata"]
    parameters = world.parameters("search-00000")
    assert meta["labels"] | {names.LABEL_TRIAL: "0", names.LABEL_SWEEP: "search"} == meta["labels"]
    assert (meta["annotations"][names.ANNOTATION_OBJECTIVE], meta["annotations"][names.ANNOTATION_GENERATION]) == (
        "val/top1",
        "0",
    )
    assert (
        meta["ownerReferences"][0] | {"kind": "TuningSweep", "name": "search", "controller": True}
        == meta["ownerReferences"][0]
    )
    assert trial["spec"]["container"]["env"] == [
        {"name": "LR", "value": parameters["lr"]},
        {"name": "WIDTH", "value": parameters["width"]},
    ]


def test_values_go_to_their_places_in_vision():
    parameters = [
        {"name": "epochs", "path": "vision.schedule.epochs", "choice": {"values": ["7"]}},
        {"name": "lr", "path": "vision.optimizer.learningRate", "choice": {"values": ["0.05"]}},
        {"name": "ops", "path": "vision.augmentation.randAugment.operations", "choice": {"values": ["3"]}},
        {"name": "det", "path": "vision.deterministic", "choice": {"values": ["true"]}},
    ]
    world = SweepWorld(**vision(parameters=parameters))
    world.settle()
    made = world.jobs["search-00000"]["spec"]["vision"]
    assert (made["schedule"]["epochs"], made["optimizer"]["learningRate"], made["deterministic"]) == (7, "0.05", True)
    assert made["augmentation"]["randAugment"] == {"operations": 3, "magnitude": 9}


def test_a_larger_model_may_get_more_of_a_resource():
    gpus = {"name": "gpus", "path": "resourcesPerNode.nvidia.com/gpu", "choice": {"values": ["4"]}}
    model = {"name": "model", "path": "vision.model.architecture", "choice": {"values": ["resnet18", "resnet50"]}}
    template = {
        "vision": {"data": {"claim": "x"}, "model": {"architecture": "vgg16"}},
        "resourcesPerNode": {"cpu": "2"},
    }
    world = SweepWorld(
        parameters=[model, gpus | {"when": [{"parameter": "model", "in": ["resnet50"]}]}],
        trialTemplate={"spec": template},
        stopping={"maxTrials": 2},
    )
    world.settle()
    made = {job["spec"]["vision"]["model"]["architecture"]: job["spec"] for job in world.jobs.values()}
    assert made["resnet18"]["resourcesPerNode"] == {"cpu": "2"}
    assert made["resnet50"]["resourcesPerNode"] == {"cpu": "2", "nvidia.com/gpu": "4"}


def test_the_ttl_of_the_template_is_not_the_trials_own():
    """Or its TrainingJob might be gone before its row is stored."""
    world = SweepWorld(trialTemplate={"spec": {**SPEC["trialTemplate"]["spec"], "ttlSecondsAfterFinished": 5}})
    world.settle()
    assert "ttlSecondsAfterFinished" not in world.jobs["search-00000"]["spec"]


def test_an_ended_trial_makes_room_for_the_next():
    world = SweepWorld()
    world.settle()
    world.complete("search-00000", 0.5)
    world.settle()
    assert world.running == ["search-00001", "search-00002"]
    row = world.ledger[0]
    assert (row["number"], row["result"], row["values"]) == (0, "Succeeded", ["0.500000000"])
    assert row["parameters"] == world.parameters("search-00000")
    assert world.status["best"]["trial"] == 0


def test_parallelism_up_and_down():
    world = SweepWorld(parallelism=1, stopping={"maxTrials": 20})
    world.settle()
    world.edit(parallelism=4)
    world.settle()
    assert len(world.running) == 4
    world.edit(parallelism=2)
    world.settle()
    assert len(world.running) == 4  # nobody is stopped for it
    for name in world.running[:2]:
        world.complete(name)
    world.settle()
    assert len(world.running) == 2
    world.complete(world.running[0])
    world.settle()
    assert len(world.running) == 2


# --- What comes of a trial ---


@pytest.mark.parametrize(
    ("end", "result", "reason", "words"),
    [
        pytest.param(
            {"state": "Failed", "reason": "OutOfMemory", "message": "killed"},
            "Failed",
            "OutOfMemory",
            "killed",
            id="out of memory",
        ),
        pytest.param(
            {"state": "Complete", "reason": "Completed"},
            "Failed",
            "MetricMissing",
            "val/top1 not reported; reported: no metric",
            id="no metric at all",
        ),
        pytest.param(
            {"state": "Complete", "reason": "Pruned", "message": "rung 3"}, "Pruned", "Pruned", "rung 3", id="pruned"
        ),
        pytest.param(
            {"state": "Complete", "reason": "SweepEnded", "message": "over"},
            "Stopped",
            "SweepEnded",
            "over",
            id="stopped",
        ),
    ],
)
def test_results(end, result, reason, words):
    world = SweepWorld()
    world.settle()
    world.end("search-00000", **end)
    world.settle()
    row = world.ledger[0]
    assert (row["result"], row["reason"]) == (result, reason)
    assert words in row["message"]


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"val/top5": "0.9", "loss": "1"}, "val/top1 not reported; reported: loss, val/top5"),
        ({"val/top1": "nan"}, "val/top1 is nan"),
        ({"val/top1": "-inf"}, "val/top1 is -inf"),
        ({"val/top1": "high"}, "val/top1 is high"),
    ],
)
def test_a_metric_that_is_not_there_is_named_with_those_that_are(metrics, words):
    world = SweepWorld()
    world.settle()
    world.complete("search-00000", metrics=metrics)
    world.settle()
    assert world.ledger[0]["reason"] == "MetricMissing"
    assert words in world.ledger[0]["message"]
    assert words in world.status["message"]


def test_a_constraint_on_a_metric_that_nobody_reports_is_named():
    world = SweepWorld(constraints=[{"metric": "latencyMs", "upper": "20"}])
    world.settle()
    world.complete("search-00000", 0.5)
    world.settle()
    assert (world.ledger[0]["result"], world.ledger[0]["reason"]) == ("Failed", "MetricMissing")
    assert "latencyMs not reported; reported: val/top1" in world.status["message"]


def test_importances_are_told_at_each_doubling_and_at_the_end():
    world = SweepWorld(lambda p: int(p["width"]) / 64, parallelism=1, stopping={"maxTrials": 13})
    told = []
    for _ in range(13):
        world.settle()
        told.append(world.status.get("importances"))
        world.complete(world.running[0])
    world.settle()
    assert told[:10] == [None] * 10
    assert told[10] == told[11] == told[12] != world.status["importances"]
    assert float(world.status["importances"]["width"]) > 0.5


def test_the_best_epoch_counts_where_the_trainer_chooses_by_the_objective():
    world = SweepWorld()
    world.settle()
    world.complete("search-00000", 0.4, best={"metric": "val/top1", "value": "0.6", "epoch": 3})
    world.settle()
    assert world.ledger[0]["values"] == ["0.6"]


def test_parameters_that_make_no_valid_job_are_a_failed_trial_without_one():
    world = SweepWorld(
        **vision(parameters=[{"name": "size", "path": "vision.imageSize", "choice": {"values": ["8", "64"]}}])
    )
    world.settle()
    assert len(world.made) == 1
    (row,) = world.ledger
    assert (row["result"], row["reason"], row["parameters"]) == ("Failed", "InvalidParameters", {"size": "8"})
    assert "spec.vision.imageSize" in row["message"]


def test_a_trial_that_somebody_deletes_is_recorded_and_the_search_goes_on():
    world = SweepWorld()
    world.settle()
    del world.jobs["search-00000"]
    world.settle()
    assert (world.ledger[0]["reason"], world.running) == ("TrialDeleted", ["search-00001", "search-00002"])


def test_one_that_only_seemed_to_be_gone_is_taken_back():
    """A cache that lags behind the status: what exists speaks for itself."""
    world = SweepWorld()
    world.settle()
    world.unseen = {"search-00000"}
    world.look()
    assert world.ledger[0]["reason"] == "TrialDeleted"
    world.unseen = set()
    world.settle()
    assert world.ledger == []
    world.complete("search-00000", 0.9)
    world.settle()
    assert world.ledger[0]["values"] == ["0.900000000"]


def test_expired_trials_go_once_their_rows_are_stored_but_never_the_best():
    world = SweepWorld(trialTemplate={"spec": {**SPEC["trialTemplate"]["spec"], "ttlSecondsAfterFinished": 100}})
    world.settle()
    for name, value in (("search-00000", 0.9), ("search-00001", 0.1)):
        world.complete(name, value, outputs={"claim": "runs", "folder": f"/{name}"})
    assert not world.look().delete
    world.settle()
    assert world.look().requeue_after == 100
    world.wait(101)
    world.settle()
    assert sorted(world.jobs) == ["search-00000", "search-00002", "search-00003"]
    assert [row["number"] for row in world.ledger] == [0, 1]
    assert world.status["best"]["outputs"] == {"claim": "runs", "folder": "/search-00000"}
    world.complete("search-00002", 1.0)
    world.settle()
    assert "search-00000" not in world.jobs
    assert world.status["best"]["trial"] == 2


# --- Pruning ---


def test_a_hopeless_trial_is_told_to_leave_and_recorded_as_pruned():
    world = SweepWorld(pruning=ASHA, parallelism=3)
    world.settle()
    for name, value in (("search-00000", 0.9), ("search-00001", 0.8), ("search-00002", 0.1)):
        world.report(name, 1, value)
        world.settle()
    assert world.told_to_leave("search-00002") == "Pruned: rung 1: 0.1 is number 3 of 3; one of 3 goes on"
    assert not world.told_to_leave("search-00000")
    world.end("search-00002", "Complete", "Pruned", "rung 1")
    world.settle()
    assert [(row["result"], row["curve"]) for row in world.ledger] == [("Pruned", "1:0.100000")]
    assert world.status["trials"]["summary"] == "1 of 6, 3 running, 1 pruned"


def test_pruning_by_time_lets_slow_epochs_catch_up():
    """Many quick epochs of a small network are compared with the few of a large one after the same time, on record too."""
    world = SweepWorld(pruning={"asha": {"minSeconds": 60, "reductionFactor": 2}}, parallelism=2)
    world.settle()
    for epoch in range(1, 8):
        world.report("search-00000", epoch, 0.1 * epoch, seconds=10 * epoch)
    world.report("search-00001", 1, 0.55, seconds=40)
    world.settle()
    assert not world.told_to_leave("search-00001")  # 0.5 was the other's at 50 s; the rung is later
    world.report("search-00001", 2, 0.65, seconds=80)
    world.settle()
    assert not world.told_to_leave("search-00001")  # against 0.6, the other's at 60 s
    world.complete("search-00000", 0.7)
    world.settle()
    assert world.ledger[0]["curve"] == "60:0.600000"
    world.report("search-00002", 1, 0.62, seconds=61)
    world.settle()
    assert world.told_to_leave("search-00002") == "Pruned: rung 60 s: 0.62 is number 2 of 3; one of 2 goes on"


def test_what_is_recorded_decides_after_its_trial_is_gone():
    world = SweepWorld(pruning=ASHA, parallelism=1)
    world.settle()
    world.report("search-00000", 1, 0.9)
    world.complete("search-00000", 0.9)
    world.settle()
    del world.jobs["search-00000"]
    world.report("search-00001", 1, 0.5)
    world.settle()
    assert world.told_to_leave("search-00001").startswith("Pruned: rung 1")


def test_what_pruning_saved():
    world = SweepWorld(pruning=ASHA, parallelism=3)
    world.settle()
    world.complete("search-00000", 0.5, gpuHours="3.0000")
    world.complete("search-00001", 0.5, gpuHours="1.0000")
    world.settle()
    assert "savedGpuHours" not in world.status
    world.end("search-00002", "Complete", "Pruned", "rung 1", gpuHours="0.5000")
    world.settle()
    assert world.status["savedGpuHours"] == "1.5000"  # two hours is what a whole one takes


# --- The end ---


def test_max_trials_lets_the_last_run_to_their_end():
    world = SweepWorld()
    world.run_out()
    assert (world.status["state"], world.ready[0], len(world.made)) == ("Complete", "MaxTrialsReached", 6)
    assert not any(world.told_to_leave(name) for name in world.jobs)
    assert world.status["completionTime"]
    assert [event.reason for event in world.events][-1] == "MaxTrialsReached"


def test_raising_max_trials_goes_on_with_the_history():
    world = SweepWorld()
    world.run_out()
    before = world.ledger
    world.edit(stopping={"maxTrials": 8})
    world.settle()
    assert (world.status["state"], world.status["finished"], len(world.made)) == ("Running", False, 8)
    assert "completionTime" not in world.status
    assert world.ledger[:6] == before
    world.run_out()
    assert world.status["trials"]["summary"] == "8 of 8"


def test_a_small_space_ends_by_itself():
    world = SweepWorld(lambda p: float(p["width"]), parameters=SMALL, stopping={"maxTrials": 20}, parallelism=5)
    world.run_out()
    assert (world.status["state"], world.ready[0], len(world.made)) == ("Complete", "SpaceExhausted", 3)
    assert world.status["best"]["parameters"] == {"width": "3"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"objectives": [{"metric": "val/top1", "target": "0.5"}]}, "TargetReached", id="target"),
        pytest.param({"stopping": {"maxTrials": 20, "maxGpuHours": "1"}}, "BudgetSpent", id="GPU-hours"),
        pytest.param({"stopping": {"maxTrials": 20, "maxCost": "3"}}, "BudgetSpent", id="cost"),
        pytest.param({"stopping": {"maxTrials": 20, "maxDuration": "1h"}}, "BudgetSpent", id="duration"),
    ],
)
def test_a_search_that_is_over_stops_what_runs(spec, reason):
    world = SweepWorld(**spec)
    world.settle()
    world.wait(3600)
    world.complete("search-00000", 0.6, gpuHours="1.0000", cost="3.0000 EUR")
    world.settle()
    assert (world.status["state"], world.ready[0]) == ("Stopping", reason)
    assert world.running == ["search-00001"]
    assert world.told_to_leave("search-00001").startswith("SweepEnded: ")
    world.end("search-00001", "Complete", "SweepEnded", "over")
    world.settle()
    assert (world.status["state"], world.ready[0], world.status["finished"]) == ("Complete", reason, True)
    assert world.status["trials"]["stopped"] == 1
    assert (world.status["gpuHours"], world.status["cost"]) == ("1.0000", "3.0000 EUR")


def test_time_alone_ends_a_search_and_sets_the_alarm():
    world = SweepWorld(stopping={"maxTrials": 20, "maxDuration": "1h"})
    world.settle()
    world.wait(600)
    assert world.look().requeue_after == 3000


def test_no_improvement():
    world = SweepWorld(parallelism=1, stopping={"maxTrials": 20, "noImprovementTrials": 3})
    for value in (0.5, 0.7, 0.6, 0.7, 0.1):
        world.settle()
        world.complete(world.running[0], value)
    world.settle()
    assert (world.status["state"], world.ready) == (
        "Complete",
        ("NoImprovement", "3 trials since trial 1, and none was better"),
    )


def test_failed_trials_are_borne_up_to_a_number():
    world = SweepWorld(parallelism=1, stopping={"maxTrials": 20, "maxFailedTrials": 1})
    for _ in range(2):
        world.settle()
        world.end(world.running[0], "Failed", "OutOfMemory", "rank 0: killed")
    world.settle()
    assert (world.status["state"], world.ready[0]) == ("Failed", "TooManyFailedTrials")
    assert "trial 1: OutOfMemory: rank 0: killed" in world.ready[1]
    world.edit(stopping={"maxTrials": 20, "maxFailedTrials": 5})
    world.settle()
    assert world.status["state"] == "Running"


def test_all_trials_failed():
    world = SweepWorld(stopping={"maxTrials": 2, "maxFailedTrials": 5})
    world.settle()
    for name in list(world.running):
        world.end(name, "Failed", "DataError", "no images")
    world.settle()
    assert (world.status["state"], world.ready[0]) == ("Failed", "NoTrialSucceeded")


def test_no_trial_keeps_the_constraints():
    world = SweepWorld(constraints=[{"metric": "ms", "upper": "20"}], stopping={"maxTrials": 1})
    world.settle()
    world.complete("search-00000", metrics={"val/top1": "0.9", "ms": "25"})
    world.settle()
    assert world.ledger[0]["constraints"] == ["25"]
    assert (world.ready[0], "constraints on ms" in world.ready[1]) == ("NoTrialSucceeded", True)


def test_the_best_keeps_the_constraints():
    world = SweepWorld(
        constraints=[{"metric": "ms", "lower": "1", "upper": "20"}], stopping={"maxTrials": 3}, parallelism=3
    )
    world.settle()
    for name, (value, ms) in zip(list(world.running), (("0.9", "25"), ("0.8", "15"), ("0.7", "0.5")), strict=True):
        world.complete(name, metrics={"val/top1": value, "ms": ms})
    world.settle()
    assert (world.status["best"]["trial"], world.status["best"]["value"]) == (1, "0.8")


def test_a_pareto_front():
    objectives = [{"metric": "val/top1"}, {"metric": "ms", "direction": "Minimize"}]
    world = SweepWorld(objectives=objectives, stopping={"maxTrials": 4}, parallelism=4)
    world.settle()
    for name, (value, ms) in zip(
        list(world.running), (("0.9", "25"), ("0.8", "15"), ("0.7", "16"), ("0.9", "25")), strict=True
    ):
        world.complete(name, metrics={"val/top1": value, "ms": ms})
    world.settle()
    assert world.status["state"] == "Complete"
    assert [(best["trial"], best["values"]) for best in world.status["pareto"]] == [
        (0, ["0.9", "25"]),
        (1, ["0.8", "15"]),
    ]
    assert "best" not in world.status


def test_a_loss_is_minimized():
    world = SweepWorld(objectives=[{"metric": "val/top1", "direction": "Minimize"}], stopping={"maxTrials": 2})
    world.settle()
    world.complete("search-00000", 0.2)
    world.complete("search-00001", 0.1)
    world.settle()
    assert world.status["best"]["trial"] == 1


# --- Suspension ---


def test_suspended_trials_keep_their_numbers():
    world = SweepWorld()
    world.settle()
    world.edit(suspend=True)
    plan = world.look()
    assert [patch.change for patch in plan.patch] == [{"spec": {"suspend": True}}] * 2
    assert world.ready[0] == "Suspended"
    world.settle()
    assert (world.status["state"], len(world.made)) == ("Suspended", 2)
    world.edit(suspend=False)
    world.settle()
    assert [job["spec"]["suspend"] for job in world.jobs.values()] == [False, False]
    assert (world.status["state"], len(world.made)) == ("Running", 2)


# --- Refit ---


def test_refit_trains_once_more_with_the_best():
    world = SweepWorld(refit={"set": [{"env": "EPOCHS", "value": "90"}]}, stopping={"maxTrials": 1})
    world.settle()
    world.complete("search-00000", 0.9)
    world.settle()
    assert (world.status["state"], world.ready[0]) == ("Refitting", "Refitting")
    refit = world.jobs["search-refit-00000"]
    assert {"name": "EPOCHS", "value": "90"} in refit["spec"]["container"]["env"]
    assert {"name": "LR", "value": world.parameters("search-00000")["lr"]} in refit["spec"]["container"]["env"]
    assert names.LABEL_TRIAL not in refit["metadata"]["labels"]
    world.complete("search-refit-00000", 0.95, outputs={"claim": "runs", "model": "model/model.pt"})
    world.settle()
    assert (world.status["state"], world.ready[0]) == ("Complete", "MaxTrialsReached")
    assert world.status["refit"] == {
        "job": "search-refit-00000",
        "trial": 0,
        "state": "Complete",
        "outputs": {"claim": "runs", "model": "model/model.pt"},
    }
    del world.jobs["search-refit-00000"]
    world.settle()
    assert (world.status["state"], world.running) == ("Complete", [])  # once is enough


def test_a_better_trial_gets_a_refit_of_its_own():
    world = SweepWorld(refit={}, stopping={"maxTrials": 1}, parallelism=1)
    world.settle()
    world.complete("search-00000", 0.5)
    world.settle()
    world.complete("search-refit-00000", 0.5)
    world.settle()
    world.edit(stopping={"maxTrials": 2})
    world.settle()
    world.complete("search-00001", 0.9)
    world.settle()
    assert "search-refit-00001" in world.running


def test_a_refit_that_fails_fails_the_sweep():
    world = SweepWorld(refit={}, stopping={"maxTrials": 1}, parallelism=1)
    world.settle()
    world.complete("search-00000", 0.5)
    world.settle()
    world.end("search-refit-00000", "Failed", "OutOfMemory", "killed")
    world.settle()
    assert (world.status["state"], world.ready) == (
        "Failed",
        ("RefitFailed", "TrainingJob search-refit-00000: OutOfMemory: killed"),
    )
    assert world.status["best"]["trial"] == 0


def test_a_refit_that_cannot_be_says_why():
    world = SweepWorld(
        **vision(
            refit={"set": [{"path": "vision.schedule.epochs", "value": "many"}]},
            stopping={"maxTrials": 1},
            parallelism=1,
        )
    )
    world.settle()
    world.complete("search-00000", 0.5)
    world.settle()
    assert world.ready[0] == "RefitFailed"
    assert "spec.vision.schedule.epochs" in world.ready[1]


# --- What is wrong from the start ---


def test_a_warm_start_out_of_range_is_named():
    world = SweepWorld(warmStart={"configurations": [{"lr": "0.01"}, {"lr": "7", "width": "1.5"}]})
    world.settle()
    assert (world.status["state"], world.ready[0], world.made) == ("Stalled", "InvalidSpec", [])
    assert "spec.warmStart.configurations[1].lr: '7' is not a value of the parameter" in world.ready[1]
    assert "configurations[1].width: '1.5'" in world.ready[1]


def test_a_spec_of_a_newer_version_is_not_guessed_at():
    world = SweepWorld(parallelization=3)
    world.settle()
    assert (world.ready[0], world.made) == ("InvalidSpec", [])
    assert "spec.parallelization: no such field" in world.ready[1]


def test_a_refused_trial_stalls_the_sweep_and_says_why():
    world = SweepWorld()
    world.refusal = Refusal("TrainingJob", "search-00000", 403, "exceeded quota")
    plan = world.look()
    assert (world.status["state"], world.ready) == (
        "Stalled",
        ("Rejected", "TrainingJob search-00000 was refused: exceeded quota"),
    )
    assert not plan.create
    world.refusal = None
    world.settle()
    assert world.status["state"] == "Running"


def test_a_deleted_sweep_is_left_to_the_garbage_collector():
    world = SweepWorld()
    world.body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    plan = world.look()
    assert (plan.create, plan.status) == ((), None)


def test_a_quiet_sweep_writes_nothing():
    world = SweepWorld()
    world.settle()
    before = json.dumps(world.body["status"])
    world.wait(300)
    plan = world.look()
    assert (plan.create, plan.patch, plan.delete, plan.events) == ((), (), (), ())
    assert json.dumps(plan.status) == before


def test_the_time_that_is_left():
    world = SweepWorld(parallelism=2, stopping={"maxTrials": 6})
    world.settle()
    world.wait(1200)
    world.complete("search-00000", 0.5)
    world.complete("search-00001", 0.5)
    world.settle()
    assert world.status["eta"] == "30m"  # 20 min each, 4 left of which 2 are half done, 2 at a time


def test_a_namesakes_trials_are_not_ours():
    world = SweepWorld()
    world.settle()
    world.body["metadata"]["uid"] = "another"
    world.body.pop("status")
    world.look()
    assert world.status["trials"]["created"] == 0
