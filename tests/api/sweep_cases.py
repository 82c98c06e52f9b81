"""Specs of TuningSweeps and updates of them, with the verdict on each; pydantic and the API server are both held to it."""

import json
from typing import Any

from darkroom_api import names
from darkroom_api.crd import tuning_sweep_crd
from darkroom_api.v1alpha1.auto import AutoSweep
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from tests.api.cases import ABSENT, CONTAINER, VISION, Case, Update, edit

SCHEMA = tuning_sweep_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
LR = {
    "name": "lr",
    "path": "vision.optimizer.learningRate",
    "double": {"min": "0.0001", "max": "0.1", "scale": "Log"},
}
MODEL = {"name": "model", "path": "vision.model.architecture", "choice": {"values": ["resnet18", "resnet50"]}}
BATCH = {"name": "batch", "path": "vision.batchSize", "int": {"min": 32, "max": 256, "scale": "Log"}}
SWEEP: dict[str, Any] = {
    "objectives": [{"metric": "val/top1"}],
    "parameters": [LR, MODEL, BATCH],
    "stopping": {"maxTrials": 40},
    "trialTemplate": {"spec": VISION},
}
TWO = [{"metric": "val/top1"}, {"metric": "latencyMs", "direction": "Minimize"}]
FULL = SWEEP | {
    "objectives": [{"metric": "val/top1", "direction": "Maximize", "target": "0.95"}],
    "constraints": [{"metric": "latencyMs", "upper": "20"}],
    "algorithm": {"name": "TPE", "seed": 7, "startupTrials": 5},
    "pruning": {"asha": {"minEpochs": 3, "reductionFactor": 3}},
    "warmStart": {"configurations": [{"lr": "0.01", "model": "resnet18"}]},
    "stopping": {
        "maxTrials": 40,
        "maxFailedTrials": 5,
        "maxGpuHours": "100",
        "maxCost": "250",
        "maxDuration": "12h",
        "noImprovementTrials": 15,
    },
    "parallelism": 4,
    "refit": {"set": [{"path": "vision.schedule.epochs", "value": "90"}]},
    "suspend": False,
}


AUTO: dict[str, Any] = {
    "auto": {"data": {"claim": "flowers"}, "budget": {"maxDuration": "1h"}, "checkpoint": {"claim": "runs"}},
}


def model_of(spec: Any) -> type[AutoSweep | TuningSweepSpec]:
    """Which of the two ways of saying a search a spec takes."""
    return AutoSweep if isinstance(spec, dict) and "auto" in spec else TuningSweepSpec


def stored(spec: Any) -> dict[str, Any]:
    """A spec with its defaults."""
    return model_of(spec).from_wire(json.dumps(spec)).to_wire()


def tuning_sweep(name: str, spec: Any) -> dict[str, Any]:
    """The object around a spec."""
    head = {"apiVersion": names.API_VERSION, "kind": "TuningSweep"}
    return {**head, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def ok(what: str, base: Any = SWEEP, **changes: Any) -> Case:
    return Case(what, edit(base, _paths(changes)), accepted=True)


def no(what: str, *words: str, base: Any = SWEEP, **changes: Any) -> Case:
    return Case(what, edit(base, _paths(changes)), accepted=False, words=words)


def _paths(changes: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in changes.items()}


def _double(**fields: Any) -> list[dict[str, Any]]:
    return [{**LR, "double": {"min": "0.1", "max": "1"} | fields}]


def _int(**fields: Any) -> list[dict[str, Any]]:
    return [{**BATCH, "int": {"min": 1, "max": 9} | fields}]


def _when(*conditions: tuple[str, list[str]], **changes: Any) -> dict[str, Any]:
    return LR | {"when": [{"parameter": name, "in": values} for name, values in conditions]} | changes


CASES = [
    Case("sweep: the least", SWEEP, accepted=True, name="search"),
    Case("sweep: everything", FULL, accepted=True),
    Case("sweep: name of 42", SWEEP, accepted=True, name="a" * 42),
    Case("sweep: name of 43", SWEEP, False, ("metadata.name must be at most 42",), name="a" * 43),
    Case("sweep: name with a dot", SWEEP, False, ("metadata.name",), name="my.search"),
    no("sweep: without objectives", "objectives", objectives=ABSENT),
    no("sweep: no objective", "objectives", objectives=[]),
    ok("sweep: three objectives", objectives=[*TWO, {"metric": "size", "direction": "Minimize"}]),
    no("sweep: four objectives", "objectives", objectives=[{"metric": str(n)} for n in range(4)]),
    no("sweep: one metric twice", "objectives must have different metrics", objectives=[TWO[0], TWO[0]]),
    no("sweep: a direction of another word", "direction", objectives=[{"metric": "a", "direction": "Up"}]),
    ok("sweep: negative target", objectives=[{"metric": "loss", "direction": "Minimize", "target": "-1.5e-3"}]),
    no("sweep: target as a float", "target", objectives=[{"metric": "loss", "target": 0.5}]),
    no(
        "sweep: targets of two",
        "objectives may have a target only if there is a single one",
        objectives=[TWO[0] | {"target": "1"}, TWO[1]],
    ),
    no("sweep: constraint without a bound", "at least one of lower and upper", constraints=[{"metric": "a"}]),
    no(
        "sweep: constraint inverted",
        "lower must not be greater than upper",
        constraints=[{"metric": "a", "lower": "2", "upper": "1"}],
    ),
    ok("sweep: constraint as a point", constraints=[{"metric": "a", "lower": "-2", "upper": "-2"}]),
    # --- auto ---
    ok("sweep: auto", base=AUTO),
    ok("sweep: auto with everything", base=AUTO, parallelism=2, suspend=True, algorithm={"name": "TPE", "seed": 1}),
    ok("sweep: auto with accelerators", base=AUTO, auto__resourcesPerNode={"cpu": "4", "nvidia.com/gpu": 1}),
    ok("sweep: auto by GPU-hours", base=AUTO, auto__budget={"maxGpuHours": "20", "maxCost": "50"}),
    ok("sweep: auto for boxes", base=AUTO, auto__task="Detection", auto__data={"claim": "c", "format": "Coco"}),
    no("sweep: auto and a search", "stopping", base=AUTO, stopping={"maxTrials": 3}),
    no("sweep: auto and a refit", "refit", base=AUTO, refit={}),
    no("sweep: nothing at all", "stopping", base={}),
    no("sweep: auto without data", "auto.data", base=AUTO, auto__data=ABSENT),
    no("sweep: auto without a place for the model", "checkpoint", base=AUTO, auto__checkpoint=ABSENT),
    no("sweep: auto without a budget", "budget", base=AUTO, auto__budget=ABSENT),
    no(
        "sweep: auto by cost alone",
        "at least one of maxDuration and maxGpuHours",
        base=AUTO,
        auto__budget={"maxCost": "5"},
    ),
    no("sweep: auto in a minute", "maxDuration must be at least 2m", base=AUTO, auto__budget={"maxDuration": "1m59s"}),
    no("sweep: auto without GPU-hours", "maxGpuHours must be more", base=AUTO, auto__budget={"maxGpuHours": "0"}),
    no("sweep: auto for free", "maxCost must be more", base=AUTO, auto__budget={"maxDuration": "1h", "maxCost": "0"}),
    no("sweep: auto for boxes in folders", "data.format must be one", base=AUTO, auto__task="Detection"),
    no("sweep: auto of another quality", "quality", base=AUTO, auto__quality="Perfect"),
    no("sweep: auto with an unknown field", "epochs", base=AUTO, auto__epochs=3),
    no("sweep: auto on half a GPU", "whole numbers", base=AUTO, auto__resourcesPerNode={"nvidia.com/gpu": "500m"}),
    no("sweep: auto on gpus", "names of resources", base=AUTO, auto__resourcesPerNode={"gpu": 1}),
    no("sweep: auto on less than nothing", "must not be negative", base=AUTO, auto__resourcesPerNode={"cpu": -1}),
    # --- parameters ---
    no("sweep: no parameters", "parameters", parameters=[]),
    no("sweep: too many parameters", "parameters", parameters=[LR | {"name": f"p{n}"} for n in range(25)]),
    no("sweep: one name twice", "parameters must have different names", parameters=[LR, {**BATCH, "name": "lr"}]),
    no("sweep: a name with a space", "name", parameters=[LR | {"name": "learning rate"}]),
    no("sweep: no range", "exactly one of double, int and choice", parameters=[edit(LR, {"double": ABSENT})]),
    no("sweep: two ranges", "exactly one of double, int and choice", parameters=[LR | {"int": BATCH["int"]}]),
    no("sweep: no place", "exactly one of path and env", parameters=[edit(LR, {"path": ABSENT})]),
    no("sweep: two places", "exactly one of path and env", parameters=[LR | {"env": "LR"}]),
    no("sweep: range inverted", "min must be less than max", parameters=_double(min="2")),
    no("sweep: range empty", "min must be less than max", parameters=_double(min="1.0")),
    no("sweep: log of zero", "scale Log needs a min greater than 0", parameters=_double(min="0", scale="Log")),
    no("sweep: log of less", "scale Log needs a min greater than 0", parameters=_double(min="-1", scale="Log")),
    ok("sweep: from less than nothing", parameters=_double(min="-1e-4", max="1e2")),
    no("sweep: no step", "step must be greater than 0", parameters=_double(step="0.0")),
    no("sweep: negative step", "step must be greater than 0", parameters=_double(step="-0.1")),
    no("sweep: log in steps", "step does not go with scale Log", parameters=_double(step="0.1", scale="Log")),
    no("sweep: range of floats", "min", parameters=_double(min=0.1)),
    no("sweep: range of words", "min", parameters=_double(min="small")),
    no("sweep: int inverted", "min must be less than max", parameters=_int(min=9, max=1)),
    no("sweep: int of one value", "min must be less than max", parameters=_int(min=9)),
    no("sweep: int from zero, log", "scale Log needs a min greater than 0", parameters=_int(min=0, scale="Log")),
    no("sweep: int log in steps", "step does not go with scale Log", parameters=_int(step=2, scale="Log")),
    no("sweep: int step of none", "step", parameters=_int(step=0)),
    ok("sweep: int with a step", parameters=_int(min=-9, step=3)),
    no("sweep: no choice", "values", parameters=[MODEL | {"choice": {"values": []}}]),
    no("sweep: a choice twice", "values must be unique", parameters=[MODEL | {"choice": {"values": ["a", "a"]}}]),
    no("sweep: path that does not exist", "path", parameters=[LR | {"path": "vision.optimizer.lr"}]),
    no("sweep: path of a whole object", "path", parameters=[LR | {"path": "vision.optimizer"}]),
    no("sweep: path that shapes no run", "path", parameters=[LR | {"path": "ttlSecondsAfterFinished"}]),
    no("sweep: path of the profile", "path", parameters=[LR | {"path": "profile"}]),
    ok(
        "sweep: more of a resource for a larger model",
        parameters=[
            MODEL,
            {
                "name": "gpus",
                "path": "resourcesPerNode.nvidia.com/gpu",
                "choice": {"values": ["4"]},
                "when": [{"parameter": "model", "in": ["resnet50"]}],
            },
        ],
    ),
    no("sweep: a strange resource", "path", parameters=[BATCH | {"path": "resourcesPerNode.example.com/tape"}]),
    ok("sweep: number of nodes", parameters=[BATCH | {"path": "numNodes"}]),
    no(
        "sweep: path in vision for a container",
        "a path in vision needs a trialTemplate with vision",
        trialTemplate__spec=CONTAINER,
    ),
    no(
        "sweep: env for vision",
        "env needs a trialTemplate with a container",
        parameters=[_when(env="LR", path=None, when=None)],
    ),
    ok("sweep: env", parameters=[_when(env="LR", path=None, when=None)], trialTemplate__spec=CONTAINER),
    no(
        "sweep: env of the operator's",
        "env must not be a name that the operator sets",
        parameters=[_when(env="DARKROOM_JOB", path=None, when=None)],
        trialTemplate__spec=CONTAINER,
    ),
    no(
        "sweep: env of torchrun's",
        "env must not be a name that the operator sets",
        parameters=[_when(env="RANK", path=None, when=None)],
        trialTemplate__spec=CONTAINER,
    ),
    no("sweep: one place twice", "may share a path or env only if", parameters=[LR, LR | {"name": "other"}]),
    ok(
        "sweep: one place under two conditions",
        parameters=[MODEL, _when(("model", ["resnet18"])), _when(("model", ["resnet50"]), name="other")],
    ),
    ok("sweep: a condition", parameters=[MODEL, _when(("model", ["resnet18"]))]),
    no("sweep: a condition forward", "when must name an earlier", parameters=[_when(("model", ["resnet18"])), MODEL]),
    no("sweep: a condition on itself", "when must name an earlier", parameters=[_when(("lr", ["1"]))]),
    no("sweep: a condition on nobody", "when must name an earlier", parameters=[MODEL, _when(("mode", ["resnet18"]))]),
    no("sweep: a condition on a range", "when must name an earlier", parameters=[BATCH, _when(("batch", ["32"]))]),
    no("sweep: a condition that cannot hold", "when must ask for", parameters=[MODEL, _when(("model", ["vgg16"]))]),
    no("sweep: no condition", "when", parameters=[MODEL, _when()]),
    # --- algorithm, pruning, stopping ---
    no("sweep: unknown algorithm", "name", algorithm={"name": "Best"}),
    no("sweep: grid over a range", "algorithm Grid needs a step", algorithm={"name": "Grid"}),
    ok("sweep: grid in steps", parameters=[*_double(step="0.1"), MODEL], algorithm={"name": "Grid"}),
    no("sweep: CMA-ES over choices", "algorithm CMAES is for", algorithm={"name": "CMAES"}),
    no("sweep: CMA-ES of one", "algorithm CMAES is for", algorithm={"name": "CMAES"}, parameters=[LR]),
    no(
        "sweep: CMA-ES of two objectives",
        "algorithm CMAES is for",
        algorithm={"name": "CMAES"},
        objectives=TWO,
        parameters=[LR, BATCH],
    ),
    ok("sweep: CMA-ES", algorithm={"name": "CMAES"}, parameters=[LR, BATCH]),
    ok("sweep: NSGA-II", algorithm={"name": "NSGAII"}, objectives=TWO),
    no("sweep: no rule of pruning", "exactly one of asha", pruning={}),
    ok("sweep: pruning by time", pruning={"asha": {"minSeconds": 60}}),
    no(
        "sweep: pruning by time and epochs",
        "minEpochs must be absent",
        pruning={"asha": {"minSeconds": 60, "minEpochs": 2}},
    ),
    no("sweep: two rules of pruning", "exactly one of asha", pruning={"asha": {}, "median": {}}),
    *(
        ok(f"sweep: pruning by {rule}", pruning={rule: settings})
        for rule, settings in {
            "asha": {},
            "hyperband": {"maxEpochs": 27},
            "median": {"warmupEpochs": 3},
            "percentile": {"percentile": 25},
            "threshold": {"lower": "0.1"},
            "patience": {"epochs": 5},
        }.items()
    ),
    ok("sweep: asha by brackets", pruning={"asha": {"mode": "Standard", "maxEpochs": 81}}),
    no("sweep: asha by brackets without an end", "need maxEpochs", pruning={"asha": {"mode": "Conservative"}}),
    no(
        "sweep: asha by brackets of time",
        "do not go with minSeconds",
        pruning={"asha": {"mode": "Standard", "maxEpochs": 81, "minSeconds": 60}},
    ),
    no(
        "sweep: asha that ends before it begins",
        "minEpochs must be less than maxEpochs",
        pruning={"asha": {"maxEpochs": 3}},
    ),
    no("sweep: pruning of two objectives", "pruning needs a single objective", objectives=TWO, pruning={"asha": {}}),
    no(
        "sweep: hyperband of no brackets",
        "minEpochs must be less than maxEpochs",
        pruning={"hyperband": {"minEpochs": 9, "maxEpochs": 9}},
    ),
    no("sweep: threshold of nothing", "at least one of lower and upper must be set", pruning={"threshold": {}}),
    no(
        "sweep: threshold inverted",
        "lower must be less than upper",
        pruning={"threshold": {"lower": "1", "upper": "-1"}},
    ),
    no("sweep: without stopping", "stopping", stopping=ABSENT),
    no("sweep: without an end", "maxTrials", stopping={}),
    no("sweep: no trials", "maxTrials", stopping__maxTrials=0),
    ok("sweep: 10000 trials", stopping__maxTrials=10000),
    no("sweep: 10001 trials", "maxTrials", stopping__maxTrials=10001),
    no("sweep: no GPU-hours", "maxGpuHours must be more than nothing", stopping__maxGpuHours="0"),
    no("sweep: no money", "maxCost must be more than nothing", stopping__maxCost="0.00"),
    no("sweep: no time", "maxDuration must be more than nothing", stopping__maxDuration="0h0m"),
    no(
        "sweep: no improvement of two",
        "stopping.noImprovementTrials needs a single objective",
        objectives=TWO,
        stopping__noImprovementTrials=3,
    ),
    no("sweep: nothing at once", "parallelism", parallelism=0),
    # --- warm start, template, refit ---
    no("sweep: warm start of nothing", "configurations", warmStart={"configurations": []}),
    no(
        "sweep: warm start of a stranger",
        "warmStart.configurations must have names of parameters as keys",
        warmStart={"configurations": [{"lr": "0.01", "momentum": "0.9"}]},
    ),
    no(
        "sweep: more warm starts than trials",
        "warmStart.configurations must not be more than stopping.maxTrials",
        stopping__maxTrials=1,
        warmStart={"configurations": [{"lr": "0.01"}, {"lr": "0.02"}]},
    ),
    no("sweep: without a template", "trialTemplate", trialTemplate=ABSENT),
    no("sweep: template of neither kind", "exactly one of vision and container", trialTemplate__spec={}),
    no("sweep: template of an unknown field", "epochs", trialTemplate__spec=VISION | {"epochs": 3}),
    no("sweep: template with a broken rule", "stem", trialTemplate__spec=edit(VISION, {"vision.model.stem": "Large"})),
    no(
        "sweep: template that is suspended", "spec.suspend must be left", trialTemplate__spec=VISION | {"suspend": True}
    ),
    no("sweep: refit of two objectives", "refit needs a single objective", objectives=TWO, refit={}),
    ok("sweep: refit as it is", refit={}),
    no("sweep: refit of a strange path", "path", refit={"set": [{"path": "vision.epochs", "value": "1"}]}),
    no("sweep: refit with an env", "env needs a trialTemplate", refit={"set": [{"env": "A", "value": "1"}]}),
]


def _update(what: str, *refused: str, base: Any = FULL, **changes: Any) -> Update:
    return Update(what, base, edit(base, _paths(changes)), refused)


UPDATES = [
    _update("sweep: auto: another budget", "auto", base=AUTO, auto__budget={"maxDuration": "2h"}),
    _update("sweep: auto: another algorithm", "algorithm", base=AUTO, algorithm={"name": "Random"}),
    _update("sweep: parallelism of auto", base=AUTO, parallelism=7, suspend=True),
    _update("sweep: objectives", "objectives", objectives=[{"metric": "val/top5"}]),
    _update("sweep: constraints removed", "constraints", constraints=ABSENT),
    _update(
        "sweep: a parameter added",
        "parameters",
        parameters=[*FULL["parameters"], {**LR, "name": "wd", "path": "vision.optimizer.weightDecay"}],
    ),
    _update("sweep: a range widened", "parameters", parameters=[edit(LR, {"double.max": "1"}), MODEL, BATCH]),
    _update("sweep: parameters in another order", "parameters", parameters=[MODEL, LR, BATCH]),
    _update("sweep: seed", "algorithm", algorithm__seed=8),
    _update("sweep: pruning removed", "pruning", pruning=ABSENT),
    _update("sweep: pruning added", "pruning", base=SWEEP, pruning={"asha": {}}),
    _update("sweep: warm start removed", "warmStart", warmStart=ABSENT),
    _update("sweep: template", "trialTemplate", trialTemplate__spec__vision__batchSize=128),
    _update("sweep: template: what is mutable of a job", "trialTemplate", trialTemplate__spec__budget={"maxCost": "3"}),
    _update("sweep: parallelism", parallelism=9),
    _update("sweep: stopping.maxTrials", stopping__maxTrials=50),
    _update("sweep: stopping: only trials", stopping={"maxTrials": 40}),
    _update("sweep: suspend", suspend=True),
    _update("sweep: refit removed", refit=ABSENT),
    _update("sweep: refit added", base=SWEEP, refit={}),
]

_MOMENT = "2026-11-24T20:02:03Z"
_OUTPUTS = {"claim": "runs", "folder": "/search-00003-0123abcd", "checkpoint": "a", "model": "b", "sha256": "0" * 64}
_BEST = {
    "trial": 3,
    "job": "search-00003",
    "value": "0.93",
    "values": ["0.93"],
    "parameters": {"lr": "0.01"},
    "outputs": _OUTPUTS,
}
STATUS: dict[str, Any] = {
    "expanded": "kind: TuningSweep",
    "observedGeneration": 3,
    "conditions": [
        {
            "type": kind,
            "status": "False",
            "observedGeneration": 3,
            "lastTransitionTime": _MOMENT,
            "reason": names.REASON_SEARCHING,
            "message": "4 of 4 trials run",
        }
        for kind in names.CONDITION_TYPES
    ],
    "state": "Running",
    "finished": False,
    "startTime": _MOMENT,
    "completionTime": _MOMENT,
    "trials": {
        "created": 16,
        "running": 4,
        "succeeded": 8,
        "pruned": 3,
        "stopped": 0,
        "failed": 1,
        "summary": "12 of 40, 4 running, 3 pruned, 1 failed",
    },
    "best": _BEST,
    "pareto": [_BEST],
    "gpuHours": "4.0000",
    "savedGpuHours": "7.5000",
    "importances": {"lr": "0.7000", "batch": "0.3000"},
    "ledgerPages": [{"name": "search-ledger-00000", "first": 0, "rows": 500, "sha256": "0" * 64}],
    "cost": "12.5000 EUR",
    "eta": "3h05m",
    "refit": {"job": "search-refit-00003", "trial": 3, "state": "Running", "outputs": _OUTPUTS},
    "message": "trial 5: OutOfMemory: killed",
    "ledger": [
        {
            "number": 3,
            "result": "Succeeded",
            "parameters": {"lr": "0.01"},
            "values": ["0.93"],
            "constraints": ["17.5"],
            "curve": "3:0.71 9:0.85",
            "generation": 2,
            "reason": "OutOfMemory",
            "message": "killed",
            "gpuHours": "0.2500",
            "cost": "0.5000 EUR",
            "seconds": 900,
        }
    ],
}
