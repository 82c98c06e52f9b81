"""A TuningSweep as pydantic has it. `test_sweep_api_server.py` holds the API server to the same table."""

from collections.abc import Iterator

import pytest
import yaml

from darkroom_api.crd import _models
from darkroom_api.v1alpha1.auto import AUTO_IS_FIXED, AutoSweep, spec_changes
from darkroom_api.v1alpha1.common import Rule
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.trial_paths import PATHS, value_at
from darkroom_api.v1alpha1.tuning_sweep import SWEEP_NAME_RULE, TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import TuningSweepStatus
from tests.api.cases import SAMPLES, Case, Update, samples_of
from tests.api.sweep_cases import AUTO, CASES, FULL, STATUS, SWEEP, UPDATES, model_of, stored
from tests.api.test_contract import problems


def complaints(case: Case) -> list[str]:
    name = [] if SWEEP_NAME_RULE.holds(case.name) else [SWEEP_NAME_RULE.message]
    return [*name, *problems(model_of(case.spec), case.spec)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_verdict(case: Case):
    found = complaints(case)
    assert (found == []) == case.accepted, found
    assert [word for word in case.words if word not in "\n".join(found)] == []


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: update.id)
def test_update(update: Update):
    before, after = stored(update.before), stored(update.after)
    assert [change.split(" ")[0] for change in spec_changes(before, after)] == list(update.refused)


def own_rules() -> Iterator[Rule]:
    of_jobs = set(_models(TrainingJobSpec))
    for model in dict.fromkeys([*_models(TuningSweepSpec), *_models(AutoSweep)]):
        if model not in of_jobs:
            yield from getattr(model, "rules", ())


@pytest.mark.parametrize("rule", [SWEEP_NAME_RULE, *own_rules()], ids=lambda rule: rule.message[:60])
def test_every_rule_has_a_row_that_breaks_it(rule: Rule):
    assert any(rule.message in complaint for case in CASES if not case.accepted for complaint in complaints(case))


def test_every_immutable_field_has_a_row_and_the_rest_is_mutable():
    fixed = {rule.field for rule in (*TuningSweepSpec.transitions, AUTO_IS_FIXED)}
    assert fixed == {field for update in UPDATES for field in update.refused}
    changed = {
        update.id.removeprefix("sweep: ").split(" ")[0].split(".")[0].rstrip(":")
        for update in UPDATES
        if not update.refused
    }
    assert set(TuningSweepSpec.model_json_schema()["properties"]) - fixed <= changed


def test_the_example_status():
    assert problems(TuningSweepStatus, STATUS) == []


def test_samples():
    found = {file: problems(model_of(body["spec"]), body["spec"]) for file, body in samples_of("TuningSweep")}
    assert found
    assert {file: wrong for file, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("page", ["README.md", "docs/guides/tuning.md", "docs/guides/auto.md"])
def test_what_the_pages_show(page: str):
    blocks = [block.split("```")[0] for block in (SAMPLES.parents[1] / page).read_text().split("```yaml\n")[1:]]
    sweeps = [body for block in blocks if (body := yaml.safe_load(block)).get("kind") == "TuningSweep"]
    assert len(sweeps) == 1
    assert problems(model_of(sweeps[0]["spec"]), sweeps[0]["spec"]) == []


def test_defaults_are_stable():
    for spec in (SWEEP, FULL, AUTO):
        assert stored(stored(spec)) == stored(spec)


def test_paths_are_the_scalar_fields_that_shape_a_run():
    assert {"vision.optimizer.learningRate", "vision.augmentation.randAugment.magnitude", "numNodes"} <= PATHS.keys()
    assert not {"vision", "vision.optimizer", "profile", "vision.normalization.mean", "suspend"} & PATHS.keys()


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("vision.optimizer.learningRate", "0.1", "0.1"),
        ("vision.batchSize", "64", 64),
        ("vision.batchSize", "sixty-four", "sixty-four"),
        ("vision.deterministic", "true", True),
        ("vision.workers", "Auto", "Auto"),
        ("vision.workers", "4", 4),
        ("vision.model.architecture", "resnet18", "resnet18"),
    ],
)
def test_values_get_the_type_of_their_field(path, text, value):
    assert value_at(path, text) == value
