"""Desired children of a TuningSweep: TrainingJobs, each with the values of its parameters in the places where they belong."""

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from darkroom_api import names
from darkroom_api.v1alpha1.common import describe_errors
from darkroom_api.v1alpha1.search_space import Place
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.trial_paths import keys_of, value_at
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_operator.core.ownership import sweep_child_metadata
from darkroom_operator.core.tuning_sweep.history import Observed
from darkroom_operator.core.tuning_sweep.space import Configuration, active
from darkroom_operator.core.tuning_sweep.suggest import Suggestion

Object = dict[str, Any]


class InvalidTrial(Exception):  # noqa: N818 - reads as what happened
    """Parameters that together make no valid TrainingJob."""


def trial_name(sweep: str, number: int) -> str:
    """Of a trial's TrainingJob."""
    return f"{sweep}-{number:05d}"


def refit_name(sweep: str, number: int) -> str:
    """Of the last training, by the trial whose parameters it has: a better trial gets a new one."""
    return f"{sweep}-refit-{number:05d}"


def trial(seen: Observed, spec: TuningSweepSpec, number: int, suggestion: Suggestion) -> Object:
    """One trial; InvalidTrial says which field does not bear its value."""
    values = _values(spec, suggestion.parameters)
    filled = _filled(spec, values)
    body = _job(seen, trial_name(seen.name, number), filled)
    body["metadata"]["labels"][names.LABEL_TRIAL] = str(number)
    notes = body["metadata"]["annotations"]
    notes[names.ANNOTATION_PARAMETERS] = json.dumps(suggestion.parameters, sort_keys=True)
    if suggestion.generation is not None:
        notes[names.ANNOTATION_GENERATION] = str(suggestion.generation)
    if len(spec.objectives) == 1:
        notes[names.ANNOTATION_OBJECTIVE] = spec.objectives[0].metric
    return body


def refit(seen: Observed, spec: TuningSweepSpec, number: int, parameters: Configuration) -> Object:
    """The last training. It stays with the sweep, for its model is what that was for."""
    changes = [(assignment, assignment.value) for assignment in (spec.refit.set if spec.refit else None) or []]
    filled = _filled(spec, [*_values(spec, parameters), *changes])
    return _job(seen, refit_name(seen.name, number), filled)


def _values(spec: TuningSweepSpec, parameters: Configuration) -> list[tuple[Place, str]]:
    return [(parameter, parameters[parameter.name]) for parameter in active(spec.parameters, parameters)]


def _filled(spec: TuningSweepSpec, values: Iterable[tuple[Place, str]]) -> Object:
    """The template's spec with the values in their places, checked as the API server will."""
    wire = copy.deepcopy(spec.trial_template.spec.to_wire())
    wire.pop("ttlSecondsAfterFinished", None)  # a trial goes when its row is stored: see plan
    for place, text in values:
        if place.path:
            _set(wire, keys_of(place.path), value_at(place.path, text))
        elif place.env:
            env = [e for e in wire["container"].get("env", []) if e["name"] != place.env]
            wire["container"]["env"] = [*env, {"name": place.env, "value": text}]
    try:
        return TrainingJobSpec.from_wire(json.dumps(wire)).to_wire()
    except ValidationError as error:
        raise InvalidTrial("; ".join(describe_errors(error, "spec"))) from error


def _set(wire: Object, path: list[str], value: str | int | bool) -> None:
    *parents, last = path
    node = wire
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value


def _job(seen: Observed, name: str, spec: Mapping[str, Any]) -> Object:
    metadata = sweep_child_metadata(seen.name, seen.uid, namespace=seen.namespace, name=name)
    return {
        "apiVersion": names.API_VERSION,
        "kind": "TrainingJob",
        "metadata": metadata | {"annotations": {}},
        "spec": dict(spec),
    }
