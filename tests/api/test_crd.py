"""The CustomResourceDefinition as text: described, bounded, small enough to apply."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from darkroom_api.crd import all_crds
from tests.api import cases, sweep_cases
from tests.api.cases import leaves

LAST_APPLIED_LIMIT = 256 * 1024
"""Of all annotations of an object: client-side `kubectl apply` keeps a copy of the whole in one."""
KINDS = {"TrainingJob": cases.SCHEMA, "TuningSweep": sweep_cases.SCHEMA}
FIELDS = {
    f"{kind}.{root}.{path}": field
    for kind, schema in KINDS.items()
    for root in ("spec", "status")
    for path, field in leaves(schema[root])
}


def is_bounded(field: Mapping[str, Any]) -> bool:
    """Whether a value of this schema has a largest size."""
    match field.get("type"):
        case "string":
            return bool({"maxLength", "enum"} & field.keys())
        case "array":
            return "maxItems" in field
        case "object":
            return "properties" in field or "maxProperties" in field
        case None:
            return field.get("x-kubernetes-int-or-string") is True and "maxLength" in field
    return True


def test_every_string_list_and_map_is_bounded():
    assert [path for path, field in FIELDS.items() if not is_bounded(field)] == []


def test_every_field_is_described_in_sentences():
    named = {path: field for path, field in FIELDS.items() if not path.endswith(("[]", "{}"))}
    assert [path for path, field in named.items() if not field.get("description", "").endswith(".")] == []


def test_defaults_of_objects_are_left_to_their_fields():
    defaults = {
        path: field["default"] for path, field in FIELDS.items() if field.get("type") == "object" and "default" in field
    }
    assert {path: default for path, default in defaults.items() if default != {}} == {}


def test_spec_and_status_are_described():
    assert all(schema[root]["description"] for schema in KINDS.values() for root in ("spec", "status"))


@pytest.mark.parametrize("table", [cases, sweep_cases], ids=["TrainingJob", "TuningSweep"])
def test_the_example_status_has_every_field(table: Any):
    def paths(value: Any, path: str = "") -> set[str]:
        if isinstance(value, list):
            return set().union({f"{path}[]"}, *(paths(inner, f"{path}[]") for inner in value))
        if not isinstance(value, dict):
            return set()
        prefix = f"{path}." if path else ""
        return set().union(*({prefix + key} | paths(inner, prefix + key) for key, inner in value.items()))

    wanted = {path for path, _ in leaves(table.SCHEMA["status"])}
    assert {path for path in wanted if not path.endswith("{}")} == paths(table.STATUS) & wanted


@pytest.mark.parametrize("crd", all_crds(), ids=KINDS)
def test_small_enough_for_client_side_apply(crd: dict[str, Any]):
    assert len(json.dumps(crd)) < LAST_APPLIED_LIMIT / 2
