"""Objects of others to ours: `python -m darkroom_api.convert FILE`.

Katib's Experiment and Kubeflow's OptimizationJob become TuningSweeps; PyTorchJob, TFJob and TrainJob become TrainingJobs. What
has no counterpart is listed with its reason; nothing is lost without a word, for every field that was not read is named too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from darkroom_api import names
from darkroom_api.convert.jobs import JOBS, QUEUE_LABEL
from darkroom_api.convert.source import ConversionError, Lost, Source
from darkroom_api.convert.sweeps import experiment, optimization_job
from darkroom_api.v1alpha1.common import Model, describe_errors
from darkroom_api.v1alpha1.training_job import NAME_RULE, TrainingJobSpec
from darkroom_api.v1alpha1.tuning_sweep import SWEEP_NAME_RULE, TuningSweepSpec

SWEEPS = {("kubeflow.org", "Experiment"): experiment, ("trainer.kubeflow.org", "OptimizationJob"): optimization_job}
_NOT_KEPT = ("kubeflow.org", "kueue.x-k8s.io", "controller-tools.k8s.io")


@dataclass(frozen=True)
class Converted:
    """An object of ours, and what it lacks of the one it was made from."""

    body: dict[str, Any]
    lost: tuple[Lost, ...]


def convert(manifest: Mapping[str, Any], *, image: str | None = None) -> Converted:
    """One object. image: where the manifest leaves it to a runtime. ConversionError where there is no valid counterpart."""
    source = Source(manifest)
    group = str(source.get("apiVersion", "")).partition("/")[0]
    key = (group, str(source.get("kind", "")))
    source.pass_over("status")
    if key in SWEEPS:
        kind, spec = "TuningSweep", SWEEPS[key](source, image=image)
    elif key in JOBS:
        kind, spec = "TrainingJob", JOBS[key](source, image=image)
    else:
        known = ", ".join(name for _, name in (*SWEEPS, *JOBS))
        raise ConversionError(f"kind {key[1]} of {manifest.get('apiVersion')}: there are {known}")
    metadata, queue = _metadata(source.at("metadata"))
    if queue and kind == "TrainingJob":
        spec["scheduling"] = spec.get("scheduling", {}) | {"queue": queue}
    rule, model = (SWEEP_NAME_RULE, TuningSweepSpec) if kind == "TuningSweep" else (NAME_RULE, TrainingJobSpec)
    if not rule.holds(metadata["name"]):
        raise ConversionError(rule.message)
    body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    _check(model, spec)
    left = [Lost(path, "no counterpart") for path in source.unread()]
    return Converted(body, (*source.lost, *left))


def _metadata(meta: Source) -> tuple[dict[str, Any], str | None]:
    """Name, namespace and labels; and the queue that a label names."""
    name = meta.text("name")
    if name is None:
        raise ConversionError("metadata.name must be set")
    labels = meta.get("labels", {})
    queue = labels.get(QUEUE_LABEL)
    kept = {key: value for key, value in labels.items() if not key.split("/")[0].endswith(_NOT_KEPT)}
    meta.lose("annotations", "kept by no object of ours")
    meta.pass_over("creationTimestamp", "generation", "resourceVersion", "uid", "managedFields", "selfLink")
    namespace = meta.text("namespace")
    found = {"name": name, "namespace": namespace, "labels": kept}
    return {key: value for key, value in found.items() if value}, queue


def _check(model: type[Model], spec: Mapping[str, Any]) -> None:
    try:
        model.from_wire(json.dumps(spec))
    except ValidationError as error:
        problems = "; ".join(describe_errors(error, "spec"))
        raise ConversionError(f"what comes out would be refused: {problems}") from error
