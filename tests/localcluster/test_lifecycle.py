"""Up, up again, killed half-way, side by side, down: and nothing is left."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localcluster import Cluster, ClusterError, mounts
from localcluster.node import image_stores
from localcluster.paths import name_on_host
from localcluster.processes import Processes
from localcluster.record import Record
from tests.localcluster.manifests import pod
from tests.unprivileged import as_nobody

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user calls it."""
    return subprocess.run(
        [sys.executable, "-m", "localcluster", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@contextmanager
def removed_at_the_end(name: str) -> Iterator[Cluster]:
    cluster = Cluster(name)
    try:
        yield cluster
    finally:
        cluster.down()


def traces(name: str) -> list[str]:
    """Everything of a cluster that the host still has."""
    cluster, name = Cluster(name), name_on_host(name)
    found = [f"process {pid}" for pid in Processes(cluster.state).pids()]
    found += [f"mount {point}" for home in (cluster.state, image_stores(name)) for point in mounts.below(home)]
    folders = [Path("/run/netns").glob(f"darkroom.{name}*"), Path("/var/lib/cni/results").glob(f"darkroom.{name}.*")]
    folders += [Path("/sys/fs/cgroup").glob(pattern) for pattern in (f"darkroom/{name}", f"*/darkroom/{name}")]
    found += [str(path) for paths in folders for path in paths]
    links = [
        link for link in Path("/var/log/containers").glob("*.log") if link.readlink().is_relative_to(cluster.state)
    ]
    return found + [str(link) for link in links] + ([str(cluster.state)] if cluster.state.exists() else [])


def outside(cluster: Cluster) -> set[Path]:
    """What a running cluster has on the host under names that only it knows: its link and its shims' sockets."""
    record = Record.load(cluster.state)
    assert record is not None
    addresses = cluster.state.glob("*/run/io.containerd.runtime.v2.task/*/*/address")
    sockets = {Path(address.read_text().removeprefix("unix://")) for address in addresses}
    return {Path(f"/sys/class/net/darkroom{record.network}"), *sockets}


def test_without_nodes() -> None:
    with removed_at_the_end("lc-none") as cluster:
        up = run("up", "--name", "lc-none", "--nodes", "none")
        assert up.returncode == 0, up.stderr
        assert "API server" in up.stdout
        assert cluster.is_up()
        began = time.monotonic()
        assert "is up already" in run("up", "--name", "lc-none", "--nodes", "none").stdout
        assert time.monotonic() - began < 5
        assert cluster.kubectl("get", "serviceaccount", "default", "-o", "name").strip() == "serviceaccount/default"
        assert cluster.node_names == []

        other = run("up", "--name", "lc-none", "--nodes", "kwok:3")
        assert (other.returncode, "down --name lc-none" in other.stderr) == (1, True)
        unheard = run("up", "--name", "lc-none", "--nodes", "none", "--audit")
        assert (unheard.returncode, "runs without --audit" in unheard.stderr) == (1, True)
        image = run("load", "--name", "lc-none", "x.tar")
        assert (image.returncode, "no real node" in image.stderr) == (1, True)

        assert run("kubeconfig", "--name", "lc-none").stdout.strip() == str(cluster.kubeconfig)
        shell = f"{run('env', '--name', 'lc-none').stdout}\nkubectl get namespaces -o name && helm list"
        said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
        assert "namespace/default" in said.stdout

        Processes(cluster.state).kill("kube-scheduler")
        status = run("status", "--name", "lc-none")
        assert status.returncode == 1
        assert "kube-scheduler              not running" in status.stdout
        assert "clearing" in run("up", "--name", "lc-none", "--nodes", "none").stdout, "a broken cluster is made anew"
        assert cluster.is_up()
    assert traces("lc-none") == []
    assert run("down", "--name", "lc-none").returncode == 0, "down twice is no error"


def test_an_audit_log_says_who_asked_for_what() -> None:
    with removed_at_the_end("lc-audit") as cluster:
        cluster.up(audit=True).kubectl("get", "namespaces")
        events = [json.loads(line) for line in cluster.audit_log.read_text().splitlines()]
        asked = {(e["user"]["username"], e["verb"], e.get("objectRef", {}).get("resource")) for e in events}
        assert ("admin", "list", "namespaces") in asked


def test_a_component_that_cannot_start_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    with removed_at_the_end("lc-broken") as cluster:
        monkeypatch.setattr("localcluster.control_plane.SERVICE_NETWORK", "10.96.0.0/99")
        with pytest.raises(ClusterError, match=r"kube-apiserver ended(.|\n)*not a valid cidr"):
            cluster.up()
    assert traces("lc-broken") == []


def killed_after(name: str, nodes: str, line: str) -> None:
    """Start a cluster and kill the command at once when it says that line."""
    command = [sys.executable, "-u", "-m", "localcluster", "up", "--name", name, "--nodes", nodes]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert any(said.startswith(line) for said in up.stdout)
        up.kill()


@pytest.mark.real
def test_killed_half_way_and_started_again(busybox: Path) -> None:
    with removed_at_the_end("lc-killed") as cluster:
        for line in ("network", "etcd", "containerd"):
            killed_after("lc-killed", "real:1", line)
            assert not cluster.is_up()
        cluster.down()
        assert traces("lc-killed") == []
        killed_after("lc-killed", "real:1", "controller manager")
        cluster.up(nodes="real:1")
        cluster.load(busybox)
        # Mounts, leases and containers must be there for `down` to clear.
        cluster.kubectl("apply", "-f", "-", input=pod("left", "sleep 300"))
        cluster.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/left")
        assert any(trace.startswith("mount") for trace in traces("lc-killed"))
        there = outside(cluster)
        assert len(there) == 2
        assert all(path.exists() for path in there)
    assert traces("lc-killed") == []
    assert not any(path.exists() for path in there)


@pytest.mark.real
def test_two_side_by_side_and_the_image_store_outlives_its_cluster(busybox: Path) -> None:
    with removed_at_the_end("lc-left") as left, removed_at_the_end("lc-right") as right:
        left.up(nodes="real:1")
        right.up(nodes="real:1")
        for cluster in (left, right):
            cluster.load(busybox)
            cluster.kubectl("apply", "-f", "-", input=pod("alive", "sleep 300"))
            cluster.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/alive")
        left.down()
        assert traces("lc-left") == []
        left.up(nodes="real:1")
        lines: list[str] = []
        Cluster("lc-left", lines.append).load(busybox)
        assert "already has" in lines[0]
        assert left.kubectl("get", "pods", "-o", "name") == "", "but no pod does"
        status = json.loads(right.kubectl("get", "pod", "alive", "-o", "jsonpath={.status}"))
        assert status["phase"] == "Running"
        assert status["containerStatuses"][0]["restartCount"] == 0, "the other cluster's kubelet touched nothing"
        left.down(purge=True)
        assert not image_stores(name_on_host("lc-left")).exists()
        assert right.is_up()


def test_real_nodes_say_that_they_need_root() -> None:
    with as_nobody(), pytest.raises(ClusterError, match="root"):
        Cluster("lc-user").up(nodes="real")
