"""The contract as a real API server enforces it: the table of `cases.py`, verdict by verdict, and the CRD itself.

Requests ask for strict field validation, as kubectl does. Without it the API server drops unknown fields before it stores
the object, so the operator meets none either way.
"""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from darkroom_api.crd import COLUMNS, UNSEEN, training_job_crd
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import TrainingJobStatus
from localcluster import Cluster
from tests.api.cases import (
    CASES,
    CONTAINER,
    SAMPLES,
    STATUS,
    STATUS_CASES,
    UPDATES,
    VISION,
    WRITTEN,
    Case,
    Update,
    edit,
    samples,
    strange_specs,
    training_job,
)
from tests.api.server import CRDS, Server
from tests.api.test_contract import problems, stored

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_verdict(server: Server, case: Case):
    answer = server.create(training_job(case.name, case.spec))
    assert answer.accepted == case.accepted, answer.body
    if not case.accepted:
        assert [word for word in case.words if word not in "\n".join(answer.complaints)] == []


@pytest.mark.parametrize("case", [case for case in WRITTEN if case.accepted], ids=lambda case: case.id)
def test_defaults(server: Server, case: Case):
    """What the API server stores is what pydantic reads from the user's text."""
    assert server.create(training_job(case.name, case.spec)).body["spec"] == stored(case.spec)


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: update.id)
def test_update(server: Server, update: Update):
    with server.existing(training_job("updated", update.before)) as body:
        answer = server.replace(body | {"spec": update.after})
    assert answer.accepted == (update.refused == ()), answer.body
    refused = [line.split(":")[0] for line in answer.complaints if "is immutable" in line]
    assert sorted(refused) == sorted(f"spec.{field}" for field in update.refused)


def test_samples(cluster: Cluster, server: Server):
    """As users apply them: kubectl reads YAML by other rules than Python does."""
    said = cluster.kubectl("apply", "--dry-run=server", "-f", str(SAMPLES))
    assert said.count("trainingjob.darkroom.dev/") == len(list(samples())) > 0, said


def test_strange_specs_have_one_verdict(server: Server):
    """What no table thinks of: random edits, judged by either side."""
    for spec in strange_specs(count=2000, seed=7):
        answer, found = server.create(training_job("flowers", spec)), problems(TrainingJobSpec, spec)
        assert answer.accepted == (found == []), (spec, found, answer.body)
        if answer.accepted:
            assert answer.body["spec"] == stored(spec)


# --- Where the two sides see different things. ---


def test_an_unknown_field_is_dropped_where_validation_is_not_strict(server: Server):
    answer = server.create(training_job("flowers", VISION | {"numNodez": 2}), validation="Warn")
    assert [warning for warning in answer.warnings if 'unknown field \\"spec.numNodez\\"' in warning]
    assert answer.body["spec"] == stored(VISION)


def test_a_whole_number_written_as_a_float_is_stored_as_one(server: Server):
    """JSON Schema counts 2.0 as an integer. The stored object says 2, so pydantic may stay strict."""
    answer = server.create(training_job("flowers", VISION | {"numNodes": 2.0}))
    assert json.dumps(answer.body["spec"]["numNodes"]) == "2"


def test_a_generated_name_is_checked_too(server: Server):
    body = training_job("", VISION)
    body["metadata"] = {"generateName": "f" * 54}
    assert [line for line in server.create(body).complaints if "metadata.name must be at most 54" in line]


# --- Rules at their most expensive: the API server gives up on an object that costs too much to check. ---

_LONG = "N" * 124
LARGEST = edit(
    CONTAINER,
    {
        "container.env": [{"name": f"{_LONG}{number:04}", "value": "v" * 2048} for number in range(64)],
        "container.mounts": [{"claim": "c" * 253, "mountPath": f"/{'m' * 1020}{number:03}"} for number in range(16)],
        "container.command": ["c" * 2048] * 64,
        "container.args": ["a" * 2048] * 128,
        "resourcesPerNode": {f"{'d' * 250}.io/{'r' * 60}{number:03}": "9" * 32 for number in range(16)},
    },
)


def test_the_largest_spec_can_be_checked_and_updated(server: Server):
    with server.existing(training_job("largest", LARGEST)) as body:
        assert server.replace(body | {"spec": LARGEST | {"suspend": True}}).accepted
        refused = server.replace(body | {"spec": edit(LARGEST, {"container.image": "other:1"})})
    assert [line for line in refused.complaints if "container is immutable" in line]


# --- Status. ---


@pytest.fixture(scope="module")
def job(server: Server) -> Iterator[dict[str, Any]]:
    """A TrainingJob to write a status to."""
    with server.existing(training_job("reported", VISION)) as body:
        yield body


@pytest.mark.parametrize("case", STATUS_CASES, ids=lambda case: case.id)
def test_status_verdict(server: Server, job: dict[str, Any], case: Case):
    answer = server.replace_status(job | {"status": case.spec})
    assert answer.accepted == case.accepted, answer.body
    if not case.accepted:
        assert [word for word in case.words if word not in "\n".join(answer.complaints)] == []


def test_a_full_status_comes_back_whole(server: Server, job: dict[str, Any]):
    stored_status = server.replace_status(job | {"status": STATUS}).body["status"]
    assert stored_status == STATUS
    assert TrainingJobStatus.from_wire(json.dumps(stored_status)).to_wire() == STATUS


def test_users_cannot_write_the_status(server: Server, job: dict[str, Any]):
    assert server.create(training_job("flowers", VISION) | {"status": STATUS}).body["status"] == UNSEEN
    assert server.replace(job | {"status": STATUS}).body["status"] == UNSEEN


def test_a_status_cannot_change_the_spec(server: Server, job: dict[str, Any]):
    answer = server.replace_status(job | {"status": STATUS, "spec": CONTAINER})
    assert answer.body["spec"] == stored(VISION)


# --- The CRD. ---


def test_the_crd_is_established(server: Server):
    """Structural, served, and its names are free."""
    conditions = server.crd()["status"]["conditions"]
    assert {condition["type"]: condition["status"] for condition in conditions} == {
        "NamesAccepted": "True",
        "Established": "True",
    }


def test_the_crd_is_stored_as_written(server: Server):
    """Nothing in it was unknown to the API server, or normalised: what Git holds is what GitOps tools compare."""
    written, kept = training_job_crd()["spec"], server.crd()["spec"]
    assert kept.pop("conversion") == {"strategy": "None"}
    assert _without_implied(kept) == _without_implied(written)


def _without_implied(spec: dict[str, Any]) -> dict[str, Any]:
    """Without priorities of 0, which the API server leaves out."""
    spec = copy.deepcopy(spec)
    for column in spec["versions"][0]["additionalPrinterColumns"]:
        if not column.get("priority"):
            column.pop("priority", None)
    return spec


def test_the_crd_raises_no_warning(server: Server):
    """On formats that the API server does not know, say."""
    crd = training_job_crd()
    crd["metadata"]["name"] = "trainingjobs.elsewhere.darkroom.dev"
    crd["spec"]["group"] = "elsewhere.darkroom.dev"
    answer = server.call("POST", f"{CRDS}?dryRun=All&fieldValidation=Strict", crd)
    assert (answer.code, answer.warnings) == (201, [])


def test_client_side_apply_worked(server: Server):
    """The fixture applied the CRD so: its copy is in the annotation that is limited in size."""
    assert "kubectl.kubernetes.io/last-applied-configuration" in server.crd()["metadata"]["annotations"]


@pytest.mark.parametrize("word", ["trainingjobs", "trainingjob", "tj", "darkroom"])
def test_kubectl_knows_the_word(cluster: Cluster, job: dict[str, Any], word: str):
    assert "reported" in cluster.kubectl("get", word, "--no-headers")


def test_columns(cluster: Cluster, server: Server):
    """The table that `kubectl get tj -o wide` prints."""
    with server.existing(training_job("shown", VISION)) as body:
        written = server.replace_status(body | {"status": STATUS}, dry=False)
        assert written.accepted
        header, row = cluster.kubectl("get", "tj", "shown", "-o", "wide").splitlines()
    plain = [name.upper() for name, *_, priority, _ in COLUMNS if priority == 0]
    wide = [name.upper() for name, *_, priority, _ in COLUMNS if priority == 1]
    assert header.split() == ["NAME", *plain, *wide]
    assert re.split(r" {2,}", row.strip()) == [
        *("shown", "Running", "2/2", "3", "0.91", "15m (14m-17m)", re.split(r" {2,}", row)[6]),
        *("2", "1", "default", "resnet18", "12.5000 EUR", "Running"),
    ]


def test_kubectl_explain(cluster: Cluster):
    """Every word of it is from the models."""
    shown = cluster.kubectl("explain", "trainingjob.spec.vision", "--recursive")
    assert "<empty>" not in shown
    for path in ("trainingjob.spec.vision", "tj.spec.container.env", "tj.status.time"):
        assert "<empty>" not in cluster.kubectl("explain", path)
    description = str(TrainingJobSpec.model_fields["num_nodes"].description)
    assert description in cluster.kubectl("explain", "trainingjob.spec.numNodes")
