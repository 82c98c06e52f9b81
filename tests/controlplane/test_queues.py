"""Queues, with a real Kueue: admission, preemption by a higher priority, and re-admission."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from localcluster import Cluster
from tests import kueue as real_kueue
from tests.kube import Kube, eventually

pytestmark = pytest.mark.cluster
KUEUE = "kueue.x-k8s.io/v1beta2"
PATIENCE = 60.0


def test_a_queue_in_a_cluster_without_kueue(flowers, kube, namespace):
    """First of this file: nobody has installed Kueue's objects yet, and a Job with its label would just run."""
    job = flowers(scheduling={"queue": "vision", "gang": "Kueue"})  # other tests have installed Volcano's objects
    job.reaches("Stalled", within=PATIENCE)
    assert job.condition("Stalled")[1] == "NoQueue"
    assert "the cluster does not serve workloads of kueue.x-k8s.io/v1beta2" in job.condition("Stalled")[2]
    assert kube.list("Job", namespace) == []
    eventually(lambda: "NoQueue" in {e["reason"] for e in kube.list("Event", namespace)}, what="an event")


@pytest.fixture(scope="module")
def kueue(cluster: Cluster, kube: Kube) -> Iterator[None]:
    """Kueue's own manager and webhooks, and what a platform team sets up around them."""
    real_kueue.start(cluster)
    for number, node in enumerate(kube.list("Node", None)):
        kube.merge("Node", None, node["metadata"]["name"], {"metadata": {"labels": {"rack": f"rack-{number // 2}"}}})
    kube.create(
        cluster_wide("Topology", "racks", levels=[{"nodeLabel": "rack"}, {"nodeLabel": "kubernetes.io/hostname"}])
    )
    kube.create(cluster_wide("ResourceFlavor", "fake", nodeLabels={"type": "kwok"}))
    kube.create(cluster_wide("ResourceFlavor", "racked", nodeLabels={"type": "kwok"}, topologyName="racks"))
    urgent = {"apiVersion": KUEUE, "kind": "WorkloadPriorityClass", "metadata": {"name": "urgent"}}
    kube.create(urgent | {"value": 1000})
    yield
    real_kueue.stop(cluster)


def cluster_wide(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": KUEUE, "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def queue(kueue: None, kube: Kube, namespace: str) -> Iterator[Callable[..., None]]:
    """Makes a LocalQueue named vision with a quota of its own."""

    def make(*, cpu: str, flavor: str = "fake") -> None:
        quotas = [{"name": "cpu", "nominalQuota": cpu}, {"name": "memory", "nominalQuota": "64Gi"}]
        flavors = [{"name": flavor, "resources": quotas}]
        group = {"coveredResources": ["cpu", "memory"], "flavors": flavors}
        preemption = {"withinClusterQueue": "LowerPriority"}
        kube.create(
            cluster_wide("ClusterQueue", namespace, namespaceSelector={}, resourceGroups=[group], preemption=preemption)
        )
        local = {"apiVersion": KUEUE, "kind": "LocalQueue", "metadata": {"name": "vision"}}
        kube.create(local | {"spec": {"clusterQueue": namespace}}, namespace)

    yield make
    if kube.get("ClusterQueue", None, namespace):
        kube.delete("ClusterQueue", None, namespace)


def queued(**more: Any) -> dict[str, Any]:
    return {"scheduling": {"queue": "vision"} | more}


def test_admission_preemption_and_readmission(flowers, queue, kube, namespace):
    queue(cpu="200m")  # room for one job of two pods
    ours = flowers(**queued(), restart={"maxRestarts": 0}, startupDeadlineSeconds=30)
    ours.reaches("Running", within=PATIENCE)
    (attempt,) = ours.status["attempts"]
    assert (attempt["gang"], attempt["queue"]) == ("Kueue", "vision")
    assert attempt["admittedTime"] >= attempt["startTime"]
    job = kube.get("Job", namespace, "flowers-1")
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"type": "kwok"}, "what Kueue wrote there stays"

    urgent = flowers(**queued(workloadPriorityClassName="urgent"), name="urgent")
    urgent.reaches("Running", within=PATIENCE)
    waiting = ours.reaches("Queued", within=PATIENCE)
    first, second = waiting["attempts"]
    assert (first["result"], first["reason"]) == ("Disrupted", "Preempted")
    assert "Preempted to accommodate a workload" in first["message"]
    assert (second["number"], waiting["restarts"], waiting["nodes"]) == (2, 0, "0/2")
    eventually(
        lambda: "insufficient unused quota" in ours.condition("Ready")[2], what=f"why: {ours.condition('Ready')}"
    )
    assert ours.pods(2) == []

    urgent.end(1, 0, 0)
    urgent.reaches("Complete", within=PATIENCE)
    ours.reaches("Running", within=PATIENCE)
    ours.end(2, 0, 0)
    done = ours.reaches("Complete", within=PATIENCE)
    assert (done["restarts"], done["disruptions"], len(done["attempts"])) == (0, 1, 2)
    assert float(done["time"]["queued"]) > 0
    told = {event["reason"] for event in kube.list("Event", namespace) if event["regarding"]["name"] == "flowers"}
    assert {"Queued", "AttemptDisrupted"} <= told


def test_an_elastic_job_is_admitted_with_what_there_is_room_for(flowers, queue, cluster, kube, namespace):
    for claim in ("digits", "runs"):
        cluster.volume(claim, namespace=namespace)
    queue(cpu="300m")  # room for three pods
    job = flowers(
        **queued(),
        container=None,
        vision={"data": {"claim": "digits"}, "model": {"architecture": "resnet18"}},
        checkpoint={"claim": "runs"},
        numNodes=None,
        elastic={"minNodes": 2, "maxNodes": 4},
    )
    job.reaches("Running", within=PATIENCE)
    eventually(lambda: job.status["nodes"] == "3/4", what=f"three of four nodes: {job.status}")
    made = kube.get("Job", namespace, "flowers-1")["spec"]
    assert (made["parallelism"], made["completions"]) == (3, 3)
    assert "queue 'vision' had room for 3" in job.condition("Ready")[2]
    assert len(job.pods(1)) == 3
    job.end(1, 0, 0, 0)
    assert job.reaches("Complete", within=PATIENCE)["restarts"] == 0


def test_a_queue_that_is_made_later(flowers, queue):
    job = flowers(**queued())
    job.reaches("Stalled", within=PATIENCE)
    assert job.condition("Stalled")[1:] == ("NoQueue", "spec.scheduling.queue: LocalQueue vision doesn't exist")
    queue(cpu="1")
    job.reaches("Running", within=PATIENCE)


def test_suspend_gives_the_place_in_the_queue_away(flowers, queue, kube, namespace):
    queue(cpu="200m")
    first = flowers(**queued())
    first.reaches("Running", within=PATIENCE)
    second = flowers(**queued(), name="second")
    second.reaches("Queued", within=PATIENCE)
    first.edit(suspend=True)
    first.reaches("Suspended", within=PATIENCE)
    second.reaches("Running", within=PATIENCE)
    assert kube.get("Job", namespace, "flowers-1") is None
    assert first.status["attempts"][0]["result"] == "Suspended"


def test_pods_near_each_other(flowers, queue, kube, namespace):
    queue(cpu="400", flavor="racked")
    # two pods of 90 CPUs need two nodes of 96: those of one rack
    job = flowers(**queued(topology={"key": "rack"}), profile="whole-node")
    job.reaches("Running", within=PATIENCE)
    nodes = {pod["spec"]["nodeName"] for pod in job.pods(1)}
    racks = {kube.get("Node", None, node)["metadata"]["labels"]["rack"] for node in nodes}
    assert (len(nodes), len(racks)) == (2, 1)
