"""`auto` expanded: every trial of it is a valid TrainingJob, and the times add up to the budget."""

import json
from typing import Any

import pytest
import yaml

from darkroom_api.automl import expand
from darkroom_api.v1alpha1.auto import AutoSweep, Quality
from darkroom_api.v1alpha1.budget import seconds_of
from darkroom_api.v1alpha1.tasks import Task
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_operator.core.tuning_sweep import objects, space
from darkroom_operator.core.tuning_sweep.history import observe
from darkroom_operator.core.tuning_sweep.suggest import Suggestion, suggest
from tests.core.sweep_world import SweepWorld

FORMATS = {Task.CLASSIFICATION: "ImageFolder", Task.SEGMENTATION: "MaskFolder", Task.DETECTION: "Coco"}


def auto(**changes: Any) -> dict[str, Any]:
    fields = {"data": {"claim": "images"}, "budget": {"maxDuration": "1h"}, "checkpoint": {"claim": "runs"}}
    return {"auto": fields | changes}


def sweep(parallelism: int = 1, **changes: Any) -> AutoSweep:
    return AutoSweep.from_wire(json.dumps(auto(**changes) | {"parallelism": parallelism}))


class AutoWorld(SweepWorld):
    """A sweep that says nothing but what is to be learned."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(score=lambda p: 0.9 if p["model"] == "resnet18" else 0.5)
        self.body["spec"] = auto(quality="Fast", **changes)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("quality", Quality)
@pytest.mark.parametrize("weights", [{}, {"weightsClaim": "hub"}], ids=["scratch", "pretrained"])
def test_every_trial_is_a_valid_job(task: Task, quality: Quality, weights: dict[str, str]):
    """Each network at each size with each policy; first what is known to be good, then whatever the sampler says."""
    spec = expand(sweep(task=task, quality=quality, data={"claim": "c", "format": FORMATS[task]}, **weights))
    choices = TuningSweepSpec.from_wire(json.dumps(_without_ranges(spec.to_wire())))
    seen = observe(SweepWorld().facts())
    for parameters in space.combinations(choices.parameters):
        made = objects.trial(seen, choices, 0, Suggestion(parameters))
        assert made["spec"]["budget"]["maxDuration"] == spec.trial_template.spec.to_wire()["budget"]["maxDuration"]
    for number in range(len(spec.warm_start.configurations if spec.warm_start else [])):
        suggestion = suggest(spec, "seed", number, [], [])
        assert suggestion
        assert objects.trial(seen, spec, number, suggestion)
        assert objects.refit(seen, spec, number, suggestion.parameters)


def _without_ranges(wire: dict[str, Any]) -> dict[str, Any]:
    """Every range as its two ends."""
    wire.pop("warmStart")
    for parameter in wire["parameters"]:
        for kind in ("double", "int"):
            if ends := parameter.pop(kind, None):
                parameter["choice"] = {"values": [str(ends["min"]), str(ends["max"])]}
    return wire


@pytest.mark.parametrize(
    ("changes", "parallelism", "search", "trial", "refit"),
    [
        pytest.param({"quality": "Fast", "budget": {"maxDuration": "10m"}}, 1, 480, 80, 96, id="ten minutes"),
        pytest.param({"quality": "Fast", "budget": {"maxDuration": "10m"}}, 2, 480, 160, 96, id="two at a time last longer"),
        pytest.param({"quality": "Fast", "budget": {"maxDuration": "2m"}}, 1, 96, 30, 30, id="too little for many"),
        pytest.param({"budget": {"maxGpuHours": "12"}}, 4, None, 2700, 8640, id="GPU-hours"),
        pytest.param(
            {"budget": {"maxGpuHours": "12"}, "resourcesPerNode": {"nvidia.com/gpu": 4}}, 1, None, 675, 2160, id="of four each"
        ),
        pytest.param({"budget": {"maxDuration": "1h", "maxGpuHours": "12"}}, 1, 2700, 225, 720, id="whichever is less"),
    ],
)  # fmt: skip
def test_times(changes, parallelism, search, trial, refit):
    spec = expand(sweep(parallelism, **changes))
    assert spec.stopping.max_duration == (f"{search}s" if search else None)
    budget = spec.trial_template.spec.budget
    assert budget
    assert seconds_of(budget.max_duration or "") == trial
    assert spec.refit
    assert [a.value for a in spec.refit.set or [] if a.path == "budget.maxDuration"] == [f"{refit}s"]
    assert spec.pruning
    assert spec.pruning.asha
    assert spec.pruning.asha.min_seconds == max(10, trial // 9)


def test_money_is_divided_too():
    stopping = expand(
        sweep(quality="Best", budget={"maxDuration": "9h", "maxGpuHours": "10", "maxCost": "100"})
    ).stopping
    assert (stopping.max_gpu_hours, stopping.max_cost) == ("7.000000", "70.000000")


def test_from_auto_to_a_last_training():
    """Each network first, in the portfolio's order; the best is trained once more."""
    world = AutoWorld()
    world.settle()
    assert world.parameters("search-00000")["model"] == "mobilenet_v3_large"
    assert world.jobs["search-00000"]["spec"]["vision"]["measure"] == ["ImageSize", "Normalization", "Stem"]
    for _ in range(40):
        for name in world.running:
            world.complete(name, 0.91 if "refit" in name else None)
        world.settle()
    assert world.status["state"] == "Complete"
    assert world.status["best"]["parameters"]["model"] == "resnet18"
    refit = world.jobs[world.status["refit"]["job"]]["spec"]
    assert refit["budget"]["maxDuration"] == "576s"
    assert refit["vision"]["model"]["architecture"] == "resnet18"


def test_the_status_tells_the_search_and_it_can_be_applied():
    world = AutoWorld()
    world.settle()
    told = yaml.safe_load(world.status["expanded"])
    assert (told["kind"], told["metadata"]["name"]) == ("TuningSweep", "search-expanded")
    assert TuningSweepSpec.from_wire(json.dumps(told["spec"])) == expand(
        AutoSweep.from_wire(json.dumps(world.body["spec"]))
    )


def test_what_the_status_tells_is_what_is_searched():
    """An operator of another version would expand it in another way; a search under way stays what it is."""
    world = AutoWorld()
    world.settle()
    told = yaml.safe_load(world.status["expanded"])
    told["spec"]["parameters"][0]["choice"]["values"] = ["mobilenet_v3_large", "resnet34"]
    told["spec"]["warmStart"]["configurations"] = [{"model": "mobilenet_v3_large"}, {"model": "resnet34"}]
    world.body["status"]["expanded"] = yaml.safe_dump(told)
    world.edit(parallelism=2)
    world.settle()
    assert world.parameters("search-00001")["model"] == "resnet34"


@pytest.mark.parametrize("text", ["", "{", "spec: 3", "[]", "spec: {parameters: 1}"])
def test_a_text_that_makes_no_sense_is_told_anew(text: str):
    world = AutoWorld()
    world.settle()
    world.body["status"]["expanded"] = text
    world.settle()
    assert yaml.safe_load(world.status["expanded"])["spec"]["parameters"]


def test_what_is_invalid_is_named():
    world = AutoWorld(budget={"maxCost": "3"})
    world.settle()
    assert world.ready[0] == "InvalidSpec"
    assert "maxDuration" in world.ready[1]
