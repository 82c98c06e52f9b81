"""Health in GitOps tools: the shipped script and expressions, in every state that the operator's own code writes."""

import dataclasses
import inspect
import re

import pytest
import yaml

from darkroom_api import names
from darkroom_api.v1alpha1.tuning_sweep_status import TuningSweepStatus
from darkroom_operator.core.training_job import plan, status
from tests.chart.health import PIPELINE, SCRIPT, Judged, Verdict, judge, recorded, sweeps
from tests.core.test_plan import running

ON_ITS_WAY = Verdict("InProgress", "InProgress", "Progressing")
EXPECTED = {
    None: ON_ITS_WAY,
    "Pending": ON_ITS_WAY,
    "Queued": ON_ITS_WAY,
    "Running": Verdict("Current", "InProgress", "Healthy"),
    "Stopping": ON_ITS_WAY,
    "Restarting": ON_ITS_WAY,
    "Suspended": Verdict("Current", "InProgress", "Suspended"),
    "Stalled": Verdict("Failed", "InProgress", "Degraded"),
    "Complete": Verdict("Current", "Current", "Healthy"),
    "Failed": Verdict("Failed", "Failed", "Degraded"),
}


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    return judge(list(recorded()))


def test_every_status_has_the_verdict_of_its_state(judged):
    wrong = [
        (state, one.verdict, one.body["status"]["conditions"])
        for one in judged
        if one.verdict != EXPECTED[state := one.body["status"].get("state")]
    ]
    assert wrong == []


def test_argo_cd_shows_the_reason_and_the_message(judged):
    for one in judged:
        ready = [c for c in one.body["status"].get("conditions", []) if c["type"] == "Ready"]
        words = f"{ready[0]['reason']}: {ready[0]['message']}" if ready else "Waiting for the operator"
        assert one.message == words


def test_the_lives_come_through_every_state(judged):
    assert {one.body["status"].get("state") for one in judged} == set(EXPECTED)
    source = inspect.getsource(status)
    assert set(re.findall(r'Phase\("(\w+)"', source)) == set(EXPECTED) - {None}
    fields = {field.name for field in dataclasses.fields(status.Phase) if field.type is bool}
    assert fields == {"ready", "stalled", "suspended", "complete", "failed"}


def test_the_lives_come_through_every_reason_that_the_plan_names(judged):
    """Reasons that only an attempt has come into conditions too, by the path of those that are here."""
    told = {c["reason"] for one in judged for c in one.body["status"].get("conditions", []) if c["type"] == "Ready"}
    named = set(re.findall(r"names\.(REASON_\w+)", inspect.getsource(plan) + inspect.getsource(status)))
    assert {getattr(names, name) for name in named} <= told


SWEEPS = {
    None: ON_ITS_WAY,
    "Running": Verdict("Current", "InProgress", "Healthy"),
    "Stopping": ON_ITS_WAY,
    "Suspended": Verdict("Current", "InProgress", "Suspended"),
    "Stalled": Verdict("Failed", "InProgress", "Degraded"),
    "Refitting": ON_ITS_WAY,
    "Complete": Verdict("Current", "Current", "Healthy"),
    "Failed": Verdict("Failed", "Failed", "Degraded"),
}


def test_sweeps():
    """The same script and expressions, in every state that a sweep's plan writes."""
    found = {one.body["status"].get("state"): one for one in judge(sweeps(), "TuningSweep")}
    assert {state: one.verdict for state, one in found.items()} == SWEEPS
    described = str(TuningSweepStatus.model_fields["state"].description)
    assert set(re.findall(r"[A-Z]\w+", described.partition(":")[2])) == set(SWEEPS) - {None}


def test_a_status_of_an_older_spec_says_nothing():
    world = running()
    world.edit(suspend=True)
    (one,) = judge([world.body])
    assert (one.verdict, one.message) == (ON_ITS_WAY, "Waiting for the operator to see the change")


def test_the_patch_for_argo_cd_has_the_script():
    data = yaml.safe_load(SCRIPT.with_name("argocd-cm.yaml").read_text())["data"]
    kinds = ("TrainingJob", "TuningSweep")
    assert data == {f"resource.customizations.health.darkroom.dev_{kind}": SCRIPT.read_text() for kind in kinds}


def test_the_pipeline_waits_for_its_trainings():
    training, serving = yaml.safe_load_all(PIPELINE.read_text())
    assert training["spec"]["wait"] is True
    assert serving["spec"]["dependsOn"] == [{"name": training["metadata"]["name"]}]
