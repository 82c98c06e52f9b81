"""What the operator keeps of an object, and what counts as a change of it."""

import copy

import pytest

from darkroom_operator.core.trimming import is_same, trimmed

POD = {
    "metadata": {
        "name": "flowers-1-0",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"a": "b"},
        "managedFields": [{}],
    },
    "spec": {"nodeName": "worker", "containers": [{"name": "trainer", "image": "trainer:1"}]},
    "status": {"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [{"name": "trainer", "ready": True}]},
}


def changed(path: str, value: object) -> dict:
    """A pod with one value changed, and so a new version."""
    body = copy.deepcopy(POD)
    part, field = path.split(".")
    body[part][field] = value
    body["metadata"]["resourceVersion"] = "8"
    return body


def test_a_pod_keeps_where_it_is_and_how_it_fares():
    assert trimmed(POD, "Pod") == {
        "metadata": {"name": "flowers-1-0", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
        "spec": {"nodeName": "worker"},
        "status": {"phase": "Running", "containerStatuses": [{"name": "trainer", "ready": True}]},
    }
    assert "managedFields" in POD["metadata"], "what others hold is not touched"


def test_a_job_keeps_whether_it_is_held_and_how_it_ended():
    job = {
        "metadata": {"name": "flowers-1", "managedFields": []},
        "spec": {"suspend": True, "completions": 4, "parallelism": 4, "template": {"spec": {"containers": []}}},
        "status": {"startTime": "2026-01-01T00:00:00Z", "active": 4, "conditions": []},
    }
    assert trimmed(job, "Job") == {
        "metadata": {"name": "flowers-1"},
        "spec": {"suspend": True, "completions": 4, "parallelism": 4},
        "status": {"startTime": "2026-01-01T00:00:00Z", "conditions": []},
    }


def test_of_other_kinds_all_but_the_managers_is_kept():
    service = {"metadata": {"name": "s", "managedFields": []}, "spec": {"clusterIP": "None"}}
    assert trimmed(service, "Service") == {"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}}


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        pytest.param("status.podIP", "10.0.0.8", True, id="what nobody looks at"),
        pytest.param("metadata.managedFields", [{}, {}], True, id="who wrote it"),
        pytest.param("status.phase", "Failed", False, id="a phase"),
        pytest.param("spec.nodeName", "other", False, id="a node"),
        pytest.param("metadata.deletionTimestamp", "2026-01-01T00:00:00Z", False, id="on its way out"),
    ],
)
def test_a_change(path, value, same):
    assert is_same(trimmed(POD, "Pod"), trimmed(changed(path, value), "Pod")) is same
