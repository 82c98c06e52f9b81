"""What the benchmarks of the operator stand on: a cluster of their own with the CRDs, and one profile."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster import Cluster
from tests.kube import Kube, install_crds

PROFILES = "default: {resources: {cpu: 10m, memory: 8Mi}}\n"
SPEC = {"container": {"image": "localhost/mine:1", "launcher": "None"}}


@contextmanager
def stage(nodes: str, *, audit: bool = False) -> Iterator[tuple[Cluster, Kube, Path]]:
    """The cluster (its size as localcluster has it), a client, and a folder with profiles.yaml; all gone afterwards."""
    cluster = Cluster("bench")
    cluster.up(nodes=nodes, audit=audit)
    try:
        with tempfile.TemporaryDirectory() as name:
            kube, folder = Kube(cluster.kubeconfig), Path(name)
            install_crds(kube)
            (folder / "profiles.yaml").write_text(PROFILES)
            yield cluster, kube, folder
    finally:
        cluster.down()
