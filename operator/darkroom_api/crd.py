"""Models to CustomResourceDefinitions: structural schemas with CEL rules, descriptions and printer columns.

What Kubernetes accepts is a subset of OpenAPI v3: no $ref, no null, no const; "structural" as the documentation of
apiextensions.k8s.io/v1 defines it.
"""

import inspect
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from darkroom_api import names
from darkroom_api.v1alpha1.auto import AUTO_IS_FIXED, ONE_WAY, Auto, AutoSweep
from darkroom_api.v1alpha1.common import Model, Rule
from darkroom_api.v1alpha1.training_job import NAME_RULE, TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import TrainingJobStatus
from darkroom_api.v1alpha1.tuning_sweep import SWEEP_NAME_RULE, TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import TuningSweepStatus

Schema = dict[str, Any]
Column = tuple[str, str, str, int, str]
"""Name, type, path, priority (1: with -o wide only), description."""

_KEPT = frozenset(
    {
        *("type", "format", "description", "default", "enum", "pattern", "minimum", "maximum"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        *("x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    }
)

UNSEEN = {"observedGeneration": -1}
"""The status of an object that the operator has not looked at yet. Without one, kstatus takes a new object for healthy."""

COLUMNS: tuple[Column, ...] = (
    ("State", "string", ".status.state", 0, "What the job does now"),
    ("Nodes", "string", ".status.nodes", 0, "Running pods of those wanted"),
    ("Progress", "integer", ".status.progress.percent", 0, "Percent of the steps done"),
    ("Metric", "string", ".status.best.value", 0, "Best value of the metric that the model is chosen by"),
    ("ETA", "string", ".status.progress.eta", 0, "Time to the end, with its range"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since creation"),
    ("Attempt", "integer", ".status.attempt", 1, "Number of the newest attempt"),
    ("Restarts", "integer", ".status.restarts", 1, "Attempts that spent maxRestarts"),
    ("Profile", "string", ".spec.profile", 1, "Profile of the platform team"),
    ("Architecture", "string", ".spec.vision.model.architecture", 1, "Network"),
    ("Cost", "string", ".status.cost", 1, "Price of all attempts"),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1, "Why it is in this state"),
)

SWEEP_COLUMNS: tuple[Column, ...] = (
    ("State", "string", ".status.state", 0, "What the sweep does now"),
    ("Trials", "string", ".status.trials.summary", 0, "Trials that have ended, and what became of them"),
    ("Best", "string", ".status.best.value", 0, "Best value of the objective"),
    ("GPU-hours", "string", ".status.gpuHours", 0, "Accelerator-hours of all trials"),
    ("ETA", "string", ".status.eta", 0, "Time to the last trial"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since creation"),
    ("Algorithm", "string", ".spec.algorithm.name", 1, "How parameters are chosen"),
    ("Best-Trial", "string", ".status.best.job", 1, "TrainingJob with the best value"),
    ("Cost", "string", ".status.cost", 1, "Price of all trials"),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1, "Why it is in this state"),
)


def training_job_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of TrainingJob."""
    return _crd(
        kind="TrainingJob",
        plural="trainingjobs",
        short="tj",
        description="A training of a computer-vision model on one or more pods.",
        spec=structural(TrainingJobSpec),
        status=TrainingJobStatus,
        name_rule=NAME_RULE,
        columns=COLUMNS,
    )


def tuning_sweep_crd() -> dict[str, Any]:
    """The CustomResourceDefinition of TuningSweep."""
    return _crd(
        kind="TuningSweep",
        plural="tuningsweeps",
        short="ts",
        description="A search for the best parameters of a training; each trial is a TrainingJob.",
        spec=sweep_schema(),
        status=TuningSweepStatus,
        name_rule=SWEEP_NAME_RULE,
        columns=SWEEP_COLUMNS,
    )


def sweep_schema() -> Schema:
    """The spec of a TuningSweep: a search said in full, or `auto` in its place. The rules of the former need all of it."""
    schema = structural(TuningSweepSpec)
    whole = " && ".join(f"has(self.{name})" for name in schema.pop("required"))
    rules = [rule.as_schema() for rule in TuningSweepSpec.rules]
    guarded = [rule | {"rule": f"!({whole}) || ({rule['rule']})"} for rule in rules]
    transitions = schema["x-kubernetes-validations"][len(rules) :]
    auto = structural(Auto) | {"description": str(AutoSweep.model_fields["auto"].description)}
    schema["properties"] = {"auto": auto, **schema["properties"]}
    schema["x-kubernetes-validations"] = [ONE_WAY.as_schema(), *guarded, AUTO_IS_FIXED.as_schema(), *transitions]
    return schema


def all_crds() -> list[dict[str, Any]]:
    """Every kind of the API."""
    return [training_job_crd(), tuning_sweep_crd()]


def _crd(
    *,
    kind: str,
    plural: str,
    short: str,
    description: str,
    spec: Schema,
    status: type[Model],
    name_rule: Rule,
    columns: tuple[Column, ...],
) -> dict[str, Any]:
    schema = {
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": structural(status) | {"default": UNSEEN},
        },
        "x-kubernetes-validations": [name_rule.as_schema()],
    }
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": name, "type": kind_, "jsonPath": path, "priority": priority, "description": text}
            for name, kind_, path, priority, text in columns
        ],
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["darkroom"],
            },
            "versions": [version],
        },
    }


def structural(model: type[BaseModel]) -> Schema:
    """A model's structural schema, references resolved and rules added."""
    whole = model.model_json_schema(by_alias=True)
    models = {m.__name__: m for m in _models(model)}
    schema = _convert(whole, whole.get("$defs", {}), models, model)
    if transitions := getattr(model, "transitions", ()):  # of the whole object alone: inside another it is part of that
        schema["x-kubernetes-validations"] = [
            *schema.get("x-kubernetes-validations", []),
            *(t.as_schema() for t in transitions),
        ]
    return schema


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and every model below it."""
    yield model
    for field in model.model_fields.values():
        for inner in _leaves(field.annotation):
            if inspect.isclass(inner) and issubclass(inner, BaseModel):
                yield from _models(inner)


def _leaves(annotation: Any) -> Iterator[Any]:
    arguments = typing.get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _leaves(argument)


def _convert(node: Schema, defs: Schema, models: dict[str, type[BaseModel]], model: type[BaseModel] | None) -> Schema:
    node, model = _resolve(node, defs, models, model)
    out = {key: value for key, value in node.items() if key in _KEPT and value is not None}
    if isinstance(out.get("default"), dict):
        out["default"] = {}  # the fields below have defaults of their own
    if "const" in node:
        out["enum"] = [node["const"]]
    if "properties" in node:
        out["properties"] = {key: _convert(value, defs, models, None) for key, value in node["properties"].items()}
        if required := node.get("required"):
            out["required"] = sorted(required)
    if "items" in node:
        out["items"] = _convert(node["items"], defs, models, None)
    if isinstance(extra := node.get("additionalProperties"), dict):
        out["additionalProperties"] = _convert(extra, defs, models, None)
    if rules := _rules(model):
        out["x-kubernetes-validations"] = [rule.as_schema() for rule in rules]
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    return out


def _resolve(
    node: Schema, defs: Schema, models: dict[str, type[BaseModel]], model: type[BaseModel] | None
) -> tuple[Schema, type[BaseModel] | None]:
    """Follow $ref, and turn "x or null" into an optional x; what the field says wins over what its type says."""
    if "anyOf" in node:
        (real,) = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        node = real | {key: value for key, value in node.items() if key != "anyOf"}
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        target, model = defs[name], models.get(name)
        node = target | {key: value for key, value in node.items() if key != "$ref"}
    return node, model


def _rules(model: type[BaseModel] | None) -> tuple[Rule, ...]:
    if model is None or not issubclass(model, Model):
        return ()
    return model.rules
