"""The contract as pydantic has it. `test_api_server.py` holds the API server to the same table."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from darkroom_api.crd import _models
from darkroom_api.v1alpha1.common import Model, Rule
from darkroom_api.v1alpha1.training_job import NAME_RULE, TrainingJobSpec, immutable_changes, name_problem
from darkroom_api.v1alpha1.training_job_status import TrainingJobStatus
from darkroom_api.v1alpha1.vision import TrainerConfig
from tests.api.cases import CASES, CONTAINER, STATUS_CASES, UPDATES, VISION, WRITTEN, Case, Update, samples


def complaints(case: Case) -> list[str]:
    """What is wrong with the name and the spec."""
    name = name_problem(case.name)
    return [*([name] if name else []), *problems(TrainingJobSpec, case.spec)]


def problems(model: type[Model], given: Any) -> list[str]:
    """Path and message of each problem; what was given is left out, for it may hold any word."""
    try:
        model.from_wire(json.dumps(given))
    except ValidationError as error:
        return [".".join(["spec", *map(str, problem["loc"])]) + ": " + problem["msg"] for problem in error.errors()]
    return []


def stored(spec: Any) -> dict[str, Any]:
    """A spec with its defaults."""
    return TrainingJobSpec.from_wire(json.dumps(spec)).to_wire()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_verdict(case: Case):
    found = complaints(case)
    assert (found == []) == case.accepted, found
    assert [word for word in case.words if word not in "\n".join(found)] == []


@pytest.mark.parametrize("case", STATUS_CASES, ids=lambda case: case.id)
def test_status_verdict(case: Case):
    found = problems(TrainingJobStatus, case.spec)
    assert (found == []) == case.accepted, found
    assert [word for word in case.words if word not in "\n".join(found)] == []


def test_samples():
    wrong = {file: found for file, body in samples() if (found := problems(TrainingJobSpec, body["spec"]))}
    assert wrong == {}


def test_ids_are_unique():
    ids = [case.id for case in CASES]
    assert [name for name in ids if ids.count(name) > 1] == []


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: update.id)
def test_update(update: Update):
    changes = immutable_changes(stored(update.before), stored(update.after))
    assert sorted(change.split(" ", 1)[0] for change in changes) == sorted(update.refused)


def rules(model: type[BaseModel] = TrainingJobSpec) -> Iterator[Rule]:
    for inner in dict.fromkeys(_models(model)):
        yield from getattr(inner, "rules", ())


@pytest.mark.parametrize("rule", [NAME_RULE, *rules()], ids=lambda rule: rule.message[:60])
def test_every_rule_has_a_row_that_breaks_it(rule: Rule):
    assert any(rule.message in complaint for case in WRITTEN if not case.accepted for complaint in complaints(case))


def test_every_field_that_shapes_a_run_has_rows():
    asked = {field for update in UPDATES for field in update.refused}
    assert asked == {rule.field for rule in TrainingJobSpec.transitions}


def test_the_rest_is_mutable():
    changed = {update.id.split(" ")[0].split(".")[0] for update in UPDATES if not update.refused}
    fields = set(TrainingJobSpec.model_json_schema()["properties"])
    assert fields - {rule.field for rule in TrainingJobSpec.transitions} <= changed


@pytest.mark.parametrize("base", [VISION, CONTAINER], ids=["vision", "container"])
def test_defaults_are_stable(base: dict[str, Any]):
    assert stored(stored(base)) == stored(base)


def test_defaults_of_a_container():
    assert stored(CONTAINER) == {
        "profile": "default",
        "numNodes": 1,
        "numProcPerNode": "Auto",
        "resourcesPerNode": {},
        "container": {"image": "mine:1", "launcher": "Torchrun"},
        "restart": {"maxRestarts": 3, "backoffSeconds": 10, "maxBackoffSeconds": 600},
        "suspend": False,
    }


def test_the_trainer_alone_obeys_the_same_rules():
    """TrainerConfig never meets the API server: every rule on `vision` must stand below it."""
    with pytest.raises(ValidationError, match="workers must be Auto"):
        TrainerConfig.model_validate({"vision": VISION["vision"] | {"workers": 65}, "dataDir": "/d", "runDir": "/r"})


def test_snake_case_is_for_python_only():
    """`populate_by_name` would let a user write what the API server refuses; see the table's `learning_rate`."""
    with pytest.raises(ValidationError):
        TrainingJobSpec.from_wire(json.dumps(VISION | {"num_nodes": 2}))
