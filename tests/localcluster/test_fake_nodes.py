"""Pods on paper: they run until an annotation says how they end."""

import json
from pathlib import Path
from typing import Any

import pytest

from localcluster import Cluster, ClusterError
from tests.localcluster.conftest import eventually
from tests.localcluster.manifests import job

pytestmark = pytest.mark.cluster
PREFIX = "localcluster.darkroom.dev/"


def end(cluster: Cluster, pod: str, **notes: str) -> None:
    """Write the script of a pod's end: termination_message becomes .../termination-message."""
    cluster.kubectl("annotate", "pod", pod, *(f"{PREFIX}{k.replace('_', '-')}={v}" for k, v in notes.items()))


def pods(cluster: Cluster, name: str) -> dict[str, Any]:
    """The pods of a Job by their index; those that are being deleted left out."""
    found = json.loads(cluster.kubectl("get", "pods", "-l", f"job-name={name}", "-o", "json"))["items"]
    index = "batch.kubernetes.io/job-completion-index"
    return {p["metadata"]["labels"][index]: p for p in found if "deletionTimestamp" not in p["metadata"]}


def running(cluster: Cluster, name: str, count: int) -> dict[str, Any]:
    cluster.kubectl("apply", "-f", "-", input=job(name, count)) if not pods(cluster, name) else None
    eventually(
        lambda: [p["status"]["phase"] for p in pods(cluster, name).values()] == ["Running"] * count,
        f"{count} pods of {name} run",
    )
    return {index: pod["metadata"]["name"] for index, pod in pods(cluster, name).items()}


def job_status(cluster: Cluster, name: str) -> dict[str, Any]:
    return json.loads(cluster.kubectl("get", "job", name, "-o", "jsonpath={.status}"))


def test_fifty_nodes_with_accelerators(fake: Cluster) -> None:
    said = fake.kubectl(
        "get", "nodes", "-l", "type=kwok", "-o", "jsonpath={.items[*].status.allocatable.nvidia\\.com/gpu}"
    )
    assert said.split() == ["8"] * 50
    assert len(fake.node_names) == 50


def test_a_lease_keeps_each_node_ready(fake: Cluster) -> None:
    """Without one a node is taken for lost after 50 s, and its pods never become Ready again."""

    def leases() -> list[str]:
        return fake.kubectl("get", "leases", "-n", "kube-node-lease", "-o", "name").split()

    eventually(lambda: len(leases()) == 50, "a lease of each node")


def test_pods_of_a_job_run_until_they_are_told(fake: Cluster) -> None:
    names = running(fake, "told", 2)
    end(fake, names["0"], exit_code="0")
    eventually(lambda: job_status(fake, "told").get("completedIndexes") == "0", "the Job counts the success")
    assert pods(fake, "told")["1"]["status"]["phase"] == "Running"
    end(fake, names["1"], exit_code="0")
    fake.kubectl("wait", "--for=condition=Complete", "job/told")


def test_a_failure_has_code_reason_message_and_disruption(fake: Cluster) -> None:
    names = running(fake, "failing", 2)
    message = '{"step": 3, "why": "it\'s \\"gone\\""}'
    end(fake, names["0"], exit_code="137", reason="OOMKilled", termination_message=message, disrupted="true")
    eventually(lambda: job_status(fake, "failing").get("failed") == 1, "the Job counts the failure")
    status = json.loads(fake.kubectl("get", "pod", names["0"], "-o", "jsonpath={.status}"))
    terminated = status["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"], terminated["message"]) == (137, "OOMKilled", message)
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert status["phase"] == "Failed"
    assert conditions["DisruptionTarget"] == "True"
    assert conditions["Ready"] == "False"
    assert pods(fake, "failing")["1"]["status"]["phase"] == "Running"


def test_an_eviction_is_the_pods_reason(fake: Cluster) -> None:
    names = running(fake, "evicted", 1)
    end(fake, names["0"], exit_code="137", reason="Evicted")
    eventually(lambda: job_status(fake, "evicted").get("failed") == 1, "the Job counts the eviction")
    status = json.loads(fake.kubectl("get", "pod", names["0"], "-o", "jsonpath={.status}"))
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")


def test_a_deleted_pod_ends_by_the_signal_first(fake: Cluster) -> None:
    """Else a Job that replaces only failed pods would wait for ever."""
    names = running(fake, "deleted", 1)
    fake.kubectl("delete", "pod", names["0"])
    eventually(lambda: job_status(fake, "deleted").get("failed") == 1, "the Job counts the deleted pod")


def test_a_script_in_the_template_plays_by_itself(fake: Cluster) -> None:
    fake.kubectl("apply", "-f", "-", input=job("alone", 4, {f"{PREFIX}exit-code": "0", f"{PREFIX}after": "1s"}))
    fake.kubectl("wait", "--for=condition=Complete", "--timeout=30s", "job/alone")


def test_a_held_pod_stays_pending_until_it_is_let_go(fake: Cluster) -> None:
    fake.kubectl("apply", "-f", "-", input=job("held", 1, {f"{PREFIX}hold": "pending"}))
    eventually(lambda: bool(pods(fake, "held")), "the pod exists")
    fake.kubectl("wait", "--for=condition=PodScheduled", "pod", "-l", "job-name=held")
    assert pods(fake, "held")["0"]["status"]["phase"] == "Pending"
    fake.kubectl("annotate", "pod", "-l", "job-name=held", f"{PREFIX}hold-")
    running(fake, "held", 1)


def test_deleting_a_job_takes_its_pods_along(fake: Cluster) -> None:
    running(fake, "removed", 3)
    fake.kubectl("delete", "job", "removed", "--timeout=30s")
    eventually(lambda: not fake.kubectl("get", "pods", "-l", "job-name=removed", "-o", "name"), "the pods are gone")


def test_admission_is_on(fake: Cluster) -> None:
    """Pod security, quota and the rest answer as in a user's cluster."""
    fake.kubectl("create", "namespace", "strict")
    fake.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    said = fake.kubectl("-n", "strict", "create", "job", "loose", "--image=none", "--dry-run=server", "-o", "name")
    assert said.strip() == "job.batch/loose"
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        fake.kubectl("-n", "strict", "run", "loose", "--image=none")


def test_a_claim_is_bound_and_its_folder_filled(fake: Cluster, tmp_path: Path) -> None:
    (tmp_path / "image").write_text("pixels")
    for _ in range(2):
        folder = fake.volume("data", namespace="made-for-it", size="2Gi", read_only=True, source=tmp_path)
    claim = json.loads(fake.kubectl("-n", "made-for-it", "get", "pvc", "data", "-o", "json"))
    assert claim["status"] == {"phase": "Bound", "accessModes": ["ReadOnlyMany"], "capacity": {"storage": "2Gi"}}
    assert (folder / "image").read_text() == "pixels"
    assert (folder.stat().st_mode & 0o777, (folder / "image").stat().st_mode & 0o777) == (0o555, 0o444)
    with pytest.raises(ClusterError, match="another access mode"):
        fake.volume("data", namespace="made-for-it")
