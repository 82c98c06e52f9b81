"""From `spec.auto` to a full search: a pure function, whose result is in the sweep's status and can be applied as it is.

Nothing here looks at the images. What depends on them (image size, normalisation, stem, classes) is measured by each trial.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from darkroom_api import names
from darkroom_api.portfolio import portfolio
from darkroom_api.v1alpha1.architectures import ARCHITECTURES
from darkroom_api.v1alpha1.auto import Auto, AutoSweep, Quality
from darkroom_api.v1alpha1.budget import seconds_of
from darkroom_api.v1alpha1.common import whole_number
from darkroom_api.v1alpha1.tasks import Task
from darkroom_api.v1alpha1.tuning_sweep import MAX_TRIALS, TuningSweepSpec

Object = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """What a word of quality stands for."""

    trials: int
    """Whole trials that the budget of the search is divided into; pruning makes room for three times as many."""
    refit: float
    """Share of the budget for the last training."""
    epochs: int
    """Most of a trial; its time is usually up before, and the schedule is fitted to it."""
    sizes: tuple[int, ...]
    """Most pixels per side."""


EFFORTS = {
    Quality.FAST: Effort(trials=6, refit=0.2, epochs=50, sizes=(160,)),
    Quality.BALANCED: Effort(trials=12, refit=0.25, epochs=100, sizes=(160, 224)),
    Quality.BEST: Effort(trials=24, refit=0.3, epochs=200, sizes=(224, 288)),
}
METRICS = {Task.CLASSIFICATION: "val/top1", Task.SEGMENTATION: "val/miou", Task.DETECTION: "val/map"}
DENSE_SIZES = {Quality.FAST: (256,), Quality.BALANCED: (320,), Quality.BEST: (416,)}
"""Segmentation and detection: pixels cost more there, and small objects need them."""

FIRST_RUNG = 9
"""Part of a trial's time after which it is judged first: a ninth, then a third (Li et al., 2020, with a factor of 3)."""
LEAST_TRIAL = 30
LEAST_RUNG = 10
REFIT_TRAINS = 0.8
"""Of the time for the last training; the rest is for its start, its last measurement and its export."""
MODERN = ("ConvNeXt", "ViT")
"""Families that want smaller learning rates (Liu et al., 2022; Dosovitskiy et al., 2021)."""
RATES = {
    # pretrained, modern: smallest, first to be tried, largest
    (False, False): ("0.0005", "0.002", "0.01"),
    (False, True): ("0.0002", "0.0008", "0.004"),
    (True, False): ("0.0001", "0.0005", "0.003"),
    (True, True): ("0.00002", "0.0001", "0.0005"),
}
"""Of AdamW for 64 images."""


def expand(sweep: AutoSweep) -> TuningSweepSpec:
    """The search that `auto` stands for."""
    auto = sweep.auto
    effort, clock = EFFORTS[Quality(auto.quality)], _Clock.of(sweep)
    models = portfolio(Task(auto.task), Quality(auto.quality), pretrained=auto.weights_claim is not None)
    spec = {
        "objectives": [{"metric": METRICS[Task(auto.task)], "direction": "Maximize"}],
        "parameters": list(_parameters(auto, models)),
        "algorithm": sweep.algorithm.to_wire(),
        "pruning": {"asha": {"minSeconds": max(LEAST_RUNG, clock.trial // FIRST_RUNG), "reductionFactor": 3}},
        "warmStart": {"configurations": _first_tries(auto, models)},
        "stopping": _stopping(auto, clock, models),
        "parallelism": sweep.parallelism,
        "trialTemplate": {"spec": _template(auto, clock, models[0])},
        "refit": {
            "set": [
                {"path": "budget.maxDuration", "value": f"{clock.refit}s"},
                {"path": "vision.schedule.epochs", "value": str(2 * effort.epochs)},
            ]
        },
        "suspend": sweep.suspend,
    }
    return TuningSweepSpec.from_wire(json.dumps(spec))


@dataclass(frozen=True)
class _Clock:
    """Seconds: of the whole search, of one trial, of the last training."""

    search: int | None
    """None: only accelerator-hours limit it."""
    trial: int
    refit: int

    @classmethod
    def of(cls, sweep: AutoSweep) -> "_Clock":
        budget, effort = sweep.auto.budget, EFFORTS[Quality(sweep.auto.quality)]
        whole = seconds_of(budget.max_duration) if budget.max_duration else None
        bounds = [whole * sweep.parallelism] if whole else []
        alone = [whole] if whole else []
        if budget.max_gpu_hours:
            hours = round(float(budget.max_gpu_hours) * 3600 / _accelerators(sweep.auto))
            bounds.append(hours)
            alone.append(hours)
        return cls(
            search=round(whole * (1 - effort.refit)) if whole else None,
            trial=max(LEAST_TRIAL, round(min(bounds) * (1 - effort.refit) / effort.trials)),
            refit=max(LEAST_TRIAL, round(min(alone) * effort.refit * REFIT_TRAINS)),
        )


def _accelerators(auto: Auto) -> int:
    """Of one training, as far as the spec says; a profile may add some."""
    asked = [int(q) for name, q in auto.resources_per_node.items() if "/" in name and whole_number(q)]
    return max(1, sum(asked))


def _stopping(auto: Auto, clock: _Clock, models: tuple[str, ...]) -> Object:
    effort = EFFORTS[Quality(auto.quality)]
    most = min(MAX_TRIALS, max(3 * effort.trials, len(models)))
    found: Object = {"maxTrials": most, "maxFailedTrials": most // 2}
    if clock.search is not None:
        found["maxDuration"] = f"{clock.search}s"
    for name, given in (("maxGpuHours", auto.budget.max_gpu_hours), ("maxCost", auto.budget.max_cost)):
        if given is not None:
            found[name] = f"{float(given) * (1 - effort.refit):.6f}"
    return found


def _template(auto: Auto, clock: _Clock, model: str) -> Object:
    effort, task = EFFORTS[Quality(auto.quality)], Task(auto.task)
    vision: Object = {
        "task": task,
        "data": auto.data.to_wire(),
        "model": {"architecture": model},
        "imageSize": _sizes(auto)[0],
        "optimizer": {"name": "AdamW", "weightDecay": "0.05"},
        "schedule": {"epochs": effort.epochs, "warmupEpochs": "1"},
    }
    if task == Task.CLASSIFICATION:
        vision["measure"] = ["ImageSize", "Normalization", "Stem"]
        vision["schedule"]["labelSmoothing"] = "0.1"
    if auto.weights_claim:
        vision["model"]["weights"] = {"claim": auto.weights_claim, "name": "Default", "missing": "Scratch"}
        vision["transfer"] = {"policy": "HeadThenAll", "layerDecay": "0.7"}
    return {
        "profile": auto.profile,
        "resourcesPerNode": auto.resources_per_node,
        "vision": vision,
        "checkpoint": auto.checkpoint.to_wire(),
        "budget": {"maxDuration": f"{clock.trial}s"},
    }


def _sizes(auto: Auto) -> tuple[int, ...]:
    quality = Quality(auto.quality)
    return EFFORTS[quality].sizes if auto.task == Task.CLASSIFICATION else DENSE_SIZES[quality]


def _parameters(auto: Auto, models: tuple[str, ...]) -> Iterator[Object]:
    yield {"name": "model", "path": "vision.model.architecture", "choice": {"values": list(models)}}
    if len(sizes := _sizes(auto)) > 1:
        yield {"name": "imageSize", "path": "vision.imageSize", "choice": {"values": [str(size) for size in sizes]}}
    for name, modern in (("lr", False), ("lr.modern", True)):
        if among := [model for model in models if _is_modern(model) == modern]:
            low, _, high = RATES[auto.weights_claim is not None, modern]
            rate = {"path": "vision.optimizer.learningRate", "double": {"min": low, "max": high, "scale": "Log"}}
            when = {"when": [{"parameter": "model", "in": among}]} if len(among) < len(models) else {}
            yield {"name": name} | rate | when
    yield {
        "name": "weightDecay",
        "path": "vision.optimizer.weightDecay",
        "double": {"min": "0.001", "max": "0.2", "scale": "Log"},
    }
    yield {"name": "flip", "path": "vision.augmentation.horizontalFlip", "choice": {"values": ["0", "0.5"]}}
    crops = ["RandomPad", "RandomResized"] if auto.task == Task.CLASSIFICATION else ["RandomResized", "Center"]
    yield {"name": "crop", "path": "vision.augmentation.crop", "choice": {"values": crops}}
    if auto.task == Task.CLASSIFICATION:
        yield {
            "name": "randAugment",
            "path": "vision.augmentation.randAugment.magnitude",
            "int": {"min": 1, "max": 12},
            "when": [{"parameter": "crop", "in": ["RandomResized"]}],
        }
    if auto.weights_claim:
        policies = ["HeadThenAll", "None"]
        yield {"name": "transfer", "path": "vision.transfer.policy", "choice": {"values": policies}}


def _is_modern(model: str) -> bool:
    return ARCHITECTURES[model].family in MODERN


def _first_tries(auto: Auto, models: tuple[str, ...]) -> list[dict[str, str]]:
    """Each network once with what suits it; whether mirror images mislead is asked at once too."""
    gentle = "RandomPad" if auto.task == Task.CLASSIFICATION else "RandomResized"
    return [
        {
            "model": model,
            "lr.modern" if _is_modern(model) else "lr": RATES[auto.weights_claim is not None, _is_modern(model)][1],
            "weightDecay": "0.05",
            "flip": ("0", "0.5")[number % 2],
            "crop": gentle,
        }
        for number, model in enumerate(models)
    ]


def manifest(name: str, namespace: str | None, spec: TuningSweepSpec) -> Object:
    """A TuningSweep to apply: the expanded search under a name of its own."""
    metadata = {"name": f"{name[:33]}-expanded"} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": names.API_VERSION, "kind": "TuningSweep", "metadata": metadata, "spec": spec.to_wire()}
