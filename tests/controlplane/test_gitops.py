"""A TrainingJob that a GitOps tool keeps applying: nothing of it drifts, and nothing of the tool's gets into its children."""

from typing import Any

import pytest
import yaml

from localcluster import Cluster
from tests.flowers import Flowers
from tests.kube import Kube, eventually

pytestmark = pytest.mark.cluster
CONTAINER = {"image": "localhost/mine:1", "command": ["torchrun", "train.py"]}
MARKS = ("argocd", "kustomize.toolkit", "helm", "app.kubernetes.io/instance", "last-applied", "team")
TRACKED = {
    "argocd-controller": {
        "labels": {"app.kubernetes.io/instance": "trainings", "team": "vision"},
        "annotations": {"argocd.argoproj.io/tracking-id": "trainings:darkroom.dev/TrainingJob:x/flowers"},
    },
    "kustomize-controller": {
        "labels": {
            "kustomize.toolkit.fluxcd.io/name": "trainings",
            "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
        },
        "annotations": {"kustomize.toolkit.fluxcd.io/ssa": "Merge"},
    },
    "helm": {
        "labels": {"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "trainings-1"},
        "annotations": {"meta.helm.sh/release-name": "trainings", "meta.helm.sh/release-namespace": "vision"},
    },
}


class Tool:
    """Applies a manifest by server-side apply under its own name, as often as it likes."""

    def __init__(self, cluster: Cluster, manager: str, manifest: dict[str, Any]) -> None:
        self.cluster, self.manager, self.manifest = cluster, manager, manifest

    def _kubectl(self, command: str) -> str:
        arguments = ("--server-side", f"--field-manager={self.manager}", "--force-conflicts", "--filename", "-")
        return self.cluster.kubectl(command, *arguments, input=yaml.safe_dump(self.manifest))

    def sync(self) -> None:
        self._kubectl("apply")

    def difference(self) -> str:
        """What a server-side diff shows: kubectl fails if that is anything."""
        return self._kubectl("diff")


@pytest.mark.parametrize("manager", TRACKED)
def test_a_job_in_git_never_drifts(
    cluster: Cluster, kube: Kube, operator: object, namespace: str, manager: str
) -> None:
    metadata = {"name": "flowers", "namespace": namespace} | TRACKED[manager]
    spec: dict[str, Any] = {"container": CONTAINER, "numNodes": 2, "suspend": True, "restart": {"backoffSeconds": 0}}
    manifest = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": metadata, "spec": spec}
    tool = Tool(cluster, manager, manifest)
    tool.sync()
    assert tool.difference() == ""
    job = Flowers.existing(kube, namespace)
    job.reaches("Suspended")
    untouched(job, tool)
    spec["suspend"] = False
    tool.sync()
    job.reaches("Running")
    untouched(job, tool)
    assert marks_of_children(kube, namespace) == []
    job.end(1, 70, 70)
    eventually(lambda: job.status.get("attempt") == 2, what="a second attempt")
    job.reaches("Running")
    untouched(job, tool)
    job.end(2, 0, 0)
    job.reaches("Complete")
    untouched(job, tool)
    before = job.now["metadata"]["resourceVersion"]
    tool.sync()
    assert job.now["metadata"]["resourceVersion"] == before


def untouched(job: Flowers, tool: Tool) -> None:
    """The object is the tool's; the operator has nothing in it but the status."""
    assert tool.difference() == ""
    metadata = job.now["metadata"]
    assert {key: metadata.get(key) for key in ("labels", "annotations")} == TRACKED[tool.manager]
    assert "finalizers" not in metadata and "ownerReferences" not in metadata
    writers = {(entry["manager"], entry.get("subresource")) for entry in metadata["managedFields"]}
    assert {writer for writer in writers if writer[1] != "status"} == {(tool.manager, None)}


def marks_of_children(kube: Kube, namespace: str) -> list[str]:
    """Labels and annotations of the children by which a tool could take them for its own."""
    children = [
        child for kind in ("Job", "Service", "Pod") for child in kube.list(kind, namespace, "darkroom.dev/attempt")
    ]
    children += kube.list("Service", namespace)
    assert len(children) >= 4
    keys = [key for c in children for part in ("labels", "annotations") for key in c["metadata"].get(part, {})]
    return [key for key in keys if any(mark in key for mark in MARKS)]
