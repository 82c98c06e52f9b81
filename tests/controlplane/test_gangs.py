"""PodGroups of every gang scheduler, as the API server checks them by the scheduler's own definitions.

crds/ has Volcano's, made by controller-gen 0.19 from volcano.sh/apis 1.14, which ships none; that of scheduler-plugins is in
its module, and the native one is the API server's own.
"""

from pathlib import Path

import pytest

from localcluster.binaries import KUEUE, source_of
from tests.kube import Refused, eventually

pytestmark = pytest.mark.cluster
APIS = {
    "Volcano": "/apis/scheduling.volcano.sh/v1beta1",
    "Coscheduling": "/apis/scheduling.x-k8s.io/v1alpha1",
    "Native": "/apis/scheduling.k8s.io/v1alpha2",
}


@pytest.fixture(scope="module")
def served(cluster):
    """Every gang scheduler's API."""
    plugins = source_of(KUEUE, "sigs.k8s.io/scheduler-plugins")
    files = [
        Path(__file__).parent / "crds/scheduling.volcano.sh_podgroups.yaml",
        plugins / "config/crd/bases/scheduling.x-k8s.io_podgroups.yaml",
    ]
    for file in files:
        cluster.kubectl("apply", "--server-side", "--filename", str(file))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def group(kube, gang, namespace):
    try:
        return kube.request("GET", f"{APIS[gang]}/namespaces/{namespace}/podgroups")["items"]
    except Refused as refused:
        assert refused.code == 429, refused  # the API server has just learnt of the kind
        return None


@pytest.mark.parametrize("gang", APIS)
def test_a_pod_group_is_made_and_goes_with_its_job(flowers, kube, namespace, served, gang):
    job = flowers(scheduling={"gang": gang})
    (made,) = eventually(lambda: group(kube, gang, namespace), within=60, what=f"a PodGroup: {job.status}")
    assert made["metadata"]["ownerReferences"][0]["uid"] == kube.get("Job", namespace, "flowers-1")["metadata"]["uid"]
    spec = made["spec"]
    assert (spec["schedulingPolicy"]["gang"]["minCount"] if gang == "Native" else spec["minMember"]) == 2
    eventually(lambda: job.status["attempts"][0].get("podGroup") == "flowers-1", what="the record of it")
    if gang == "Native":  # Kubernetes' own scheduler places them together
        job.reaches("Running", within=60)
    job.edit(suspend=True)
    job.reaches("Suspended", within=60)
    eventually(lambda: group(kube, gang, namespace) == [], within=60, what="the PodGroup is gone")


@pytest.mark.parametrize("gang", APIS)
def test_one_of_somebody_else_is_left_alone(flowers, kube, namespace, served, gang):
    spec = {"schedulingPolicy": {"basic": {}}} if gang == "Native" else {"minMember": 1}
    theirs = {"apiVersion": APIS[gang].removeprefix("/apis/"), "kind": "PodGroup", "metadata": {"name": "flowers-1"}}
    kube.request("POST", f"{APIS[gang]}/namespaces/{namespace}/podgroups", theirs | {"spec": spec})
    job = flowers(scheduling={"gang": gang})
    job.reaches("Stalled", within=60)
    assert job.condition("Stalled")[1] == "NameTaken"
