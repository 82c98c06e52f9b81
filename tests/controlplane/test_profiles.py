"""What a profile hands to Kubernetes: priorities and devices, as the real API server and scheduler take them."""

import pytest

from tests.kube import eventually

pytestmark = pytest.mark.cluster


@pytest.fixture
def made(kube):
    """Makes cluster-wide objects that go after the test."""
    kept = []

    def make(api: str, kind: str, name: str, **fields):
        kept.append((kind, name))
        return kube.create({"apiVersion": api, "kind": kind, "metadata": {"name": name}} | fields)

    yield make
    for kind, name in kept:
        kube.delete(kind, None, name)


def test_a_priority_that_the_profile_allows(flowers, kube, made):
    made("scheduling.k8s.io/v1", "PriorityClass", "urgent", value=1000)
    job = flowers(profile="whole-node", scheduling={"priorityClassName": "urgent"})
    job.reaches("Stalled")
    status, reason, message = job.condition("Stalled")
    assert (status, reason) == ("True", "PriorityClassNotAllowed")
    assert "allowed: none" in message
    job.edit(scheduling=None)
    job.reaches("Running")
    assert {pod["spec"].get("priority") for pod in job.pods(1)} == {0}


def test_devices_by_claim(flowers, kube, namespace, made):
    """A driver offers one device on one node: there the pod goes, with a claim of its own."""
    made("scheduling.k8s.io/v1", "PriorityClass", "urgent", value=1000)
    made("resource.k8s.io/v1", "DeviceClass", "gpu.example.com", spec={})
    node = sorted(node["metadata"]["name"] for node in kube.list("Node"))[1]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    devices = {"driver": "gpu.example.com", "nodeName": node, "pool": pool, "devices": [{"name": "gpu-0"}]}
    made("resource.k8s.io/v1", "ResourceSlice", "gpus-of-one-node", spec=devices)
    one = {"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}
    template = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "one-gpu"}}
    kube.create(template | {"spec": {"spec": {"devices": {"requests": [one]}}}}, namespace)
    job = flowers(profile="claims", numNodes=1, scheduling={"priorityClassName": "urgent"})
    job.reaches("Running")
    (pod,) = job.pods(1)
    assert (pod["spec"]["nodeName"], pod["spec"]["priority"]) == (node, 1000)
    (claim,) = kube.list("ResourceClaim", namespace)
    assert claim["status"]["reservedFor"][0]["uid"] == pod["metadata"]["uid"]
    assert job.status["resolved"]["numProcPerNode"] == 1
    job.end(1, 0)
    job.reaches("Complete")
    eventually(lambda: not kube.list("ResourceClaim", namespace), within=60, what="claim gone with the pod")
