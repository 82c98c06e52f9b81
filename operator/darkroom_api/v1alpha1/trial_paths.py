"""Which fields of a TrainingJob a tuning sweep may set, and what a value becomes there."""

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from darkroom_api.v1alpha1.training_job import TrainingJobSpec

_WHOLE = ("vision", "num_nodes", "num_proc_per_node", "budget")
"""What shapes a run, and how long it lasts. Not the profile: who may use which is checked when the sweep is created."""


def _paths(
    model: type[BaseModel], prefix: str, only: tuple[str, ...] | None = None
) -> Iterator[tuple[str, frozenset[Any]]]:
    for name, field in model.model_fields.items():
        if only is not None and name not in only:
            continue
        path, kinds = f"{prefix}{field.alias}", frozenset(_kinds(field.annotation))
        inner = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if inner:
            yield from _paths(inner, f"{path}.")
        elif kinds and not kinds & {list, dict}:
            yield path, kinds


def _kinds(annotation: Any) -> Iterator[type]:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        yield str
    elif origin in (list, dict):
        yield origin
    elif origin is typing.Annotated:
        yield from _kinds(typing.get_args(annotation)[0])
    elif arguments := typing.get_args(annotation):
        for argument in arguments:
            yield from _kinds(argument)
    elif isinstance(annotation, type) and annotation is not type(None):
        yield annotation


RESOURCES = "resourcesPerNode."
_AMOUNTS = ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi")
PATHS: dict[str, frozenset[Any]] = dict(
    sorted((*_paths(TrainingJobSpec, "", _WHOLE), *((RESOURCES + name, frozenset({str})) for name in _AMOUNTS)))
)
"""Every scalar field by its path, as vision.optimizer.learningRate, and the types that it takes."""


def keys_of(path: str) -> list[str]:
    """The keys that lead to the field; a resource's name is one key, whatever dots it has."""
    if path.startswith(RESOURCES):
        return [RESOURCES.rstrip("."), path.removeprefix(RESOURCES)]
    return path.split(".")


def value_at(path: str, text: str) -> str | int | bool:
    """A parameter's text as the field at `path` wants it; what does not fit stays text, which the model then refuses."""
    kinds = PATHS[path]
    if bool in kinds:
        return {"true": True, "false": False}.get(text, text)
    if int in kinds:
        try:
            return int(text)
        except ValueError:
            return text
    return text
