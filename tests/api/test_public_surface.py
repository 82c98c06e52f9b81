"""What others build on: a change here is a change of the API, to be made on purpose and written into the changelog.

`UPDATE_SURFACE=1 pytest tests/api/test_public_surface.py` writes the file anew; its diff is what a reviewer reads.
"""

import os
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from darkroom_api import names, report
from darkroom_api.crd import COLUMNS, structural, training_job_crd
from darkroom_api.v1alpha1.architectures import ARCHITECTURES
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.vision import TrainerConfig
from tests.api.cases import SCHEMA, leaves

GOLDEN = Path(__file__).with_name("surface.txt")
_LIMITS = {
    "minimum": "min",
    "maximum": "max",
    "minLength": "minLength",
    "maxLength": "maxLength",
    "minItems": "minItems",
    "maxItems": "maxItems",
    "maxProperties": "maxProperties",
    "format": "format",
    "pattern": "pattern",
    "default": "default",
}


def surface() -> Iterator[str]:
    """The whole of it, in sections."""
    crd = training_job_crd()["spec"]
    yield f"# {crd['group']}/{crd['versions'][0]['name']} {crd['names']['kind']}, {crd['scope']}"
    yield " ".join(["also:", crd["names"]["plural"], *crd["names"]["shortNames"], *crd["names"]["categories"]])
    for name, kind, path, priority, _ in COLUMNS:
        yield f"column {name}: {kind} {path} priority={priority}"
    yield from _section("spec", _fields(SCHEMA["spec"], "spec."))
    yield from _section("rules of spec", (f"{path}: {message}" for path, message in _rules(SCHEMA["spec"], "spec")))
    yield from _section("status", _fields(SCHEMA["status"], "status."))
    yield from _section("termination message", _fields(structural(report.TerminationMessage)))
    yield from _section("live report", _fields(structural(report.LiveReport)))
    yield from _section("reply", _fields(structural(report.Reply)))
    yield from _section("exit codes", (f"{code.value} {code.name}" for code in report.ExitCode))
    yield from _section("reasons of a trainer", _values(report.Reason))
    yield from _section("time buckets", report.TIME_BUCKETS)
    yield from _section("trainer config", _own_fields())
    yield from _section("names", _constants())


def _section(title: str, lines: Any) -> Iterator[str]:
    yield from ["", f"# {title}", *lines]


def _values(kind: type[Enum]) -> list[str]:
    return [str(member.value) for member in kind]


def _own_fields() -> Iterator[str]:
    """Fields of the trainer's file; those of `vision` are the spec's."""
    return (line for line in _fields(structural(TrainerConfig)) if not line.startswith("vision."))


def _constants() -> Iterator[str]:
    return (f"{name} = {value!r}" for name, value in vars(names).items() if name.isupper())


def _fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    required = set(_required(schema))
    for path, field in leaves(schema):
        yield prefix + " ".join([path, _kind(field), *(["required"] if path in required else []), *_limits(field)])


def _required(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    yield from (path + name for name in schema.get("required", []))
    for name, field in schema.get("properties", {}).items():
        yield from _required(field, f"{path}{name}.")
        if "items" in field:
            yield from _required(field["items"], f"{path}{name}[].")


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        choices = field["enum"]
        return "architecture" if choices == sorted(ARCHITECTURES) else "|".join(choices)
    return str(field.get("type", "integer|string"))


def _limits(field: Mapping[str, Any]) -> Iterator[str]:
    return (f"{short}={field[key]!r}" for key, short in _LIMITS.items() if key in field)


def _rules(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    yield from ((path, rule["message"]) for rule in schema.get("x-kubernetes-validations", []))
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")
        yield from _rules(field.get("items", {}), f"{path}.{name}[]")


def test_surface():
    now = "\n".join(surface()) + "\n"
    if os.environ.get("UPDATE_SURFACE"):
        GOLDEN.write_text(now)
    assert now == GOLDEN.read_text(), "the public surface changed: see the module's docstring"


def test_reasons_are_known_to_the_operator():
    """A trainer's reason becomes the reason of a condition, which `names` documents."""
    known = {value for name, value in vars(names).items() if name.startswith("REASON_")}
    assert set(_values(report.Reason)) <= known


def test_time_buckets_are_fields_of_the_status():
    assert set(report.TIME_BUCKETS) <= set(SCHEMA["status"]["properties"]["time"]["properties"])


def test_every_variable_of_the_operator_is_reserved():
    own = [value for name, value in vars(names).items() if name.startswith("ENV_")]
    assert [name for name in own if not name.startswith(names.RESERVED_ENV_PREFIXES)] == []


def test_names_are_unique_and_valid():
    labels = [value for name, value in vars(names).items() if name.startswith("LABEL_")]
    assert len(set(labels)) == len(labels)
    assert [label for label in labels if len(label.rsplit("/", 1)[-1]) > 63] == []


def test_every_field_of_the_spec_is_in_the_surface():
    """The walk over the schema misses nothing that the model has."""
    assert {path.split(".")[0] for path, _ in leaves(SCHEMA["spec"])} >= {
        field.alias for field in TrainingJobSpec.model_fields.values() if field.alias
    }
