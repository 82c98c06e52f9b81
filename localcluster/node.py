"""A real node: containerd, kubelet and kube-proxy in a network namespace and a cgroup of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from localcluster import cgroups, images, mounts, node_config
from localcluster.control_plane import ControlPlane
from localcluster.errors import ClusterError
from localcluster.network import Network
from localcluster.node_config import NodeFacts
from localcluster.paths import cache_home
from localcluster.processes import Processes

DAEMONS = ("containerd", "kubelet", "kube-proxy")
LOSS_SECONDS = 15  # a node that is silent for so long is NotReady, and so long again its pods are given up
_PATIENCE = 60.0
_LONGEST_SOCKET = 107  # what fits into a socket address
_CNI_RESULTS = Path("/var/lib/cni/results")  # libcni's own folder, not to be configured through containerd
_LOG_LINKS = Path("/var/log/containers")  # kubelet's own, not to be configured either


class Node:
    """Node number `number` of a cluster."""

    def __init__(self, cluster: str, state: Path, tools: Path, network: Network, number: int) -> None:
        self.name = f"node-{number}"
        self.cgroup = cgroups.root(cluster, self.name)
        self.store = image_stores(cluster) / self.name
        self._cluster = cluster
        self._number = number
        self._network = network
        self._tools = tools
        self._processes = Processes(state)
        self._state = state
        self._folder = state / self.name
        self._socket = self._folder / "containerd.sock"

    def start(self, plane: ControlPlane) -> None:
        """containerd with the pause image, then the daemons that join it to the cluster."""
        self._prepare(plane)
        self.start_containerd()
        self._forget_containers()
        self.load(images.pause_archive(self._tools / "pause"))
        self.start_daemons()

    def start_containerd(self) -> None:
        self._daemon("containerd", ["containerd", "--config", self._folder / "containerd.toml"])
        component = self.component("containerd")
        self._processes.await_ready(component, lambda: self._ctr("version") is not None, _PATIENCE)

    def start_daemons(self) -> None:
        kubelet: list[str | Path] = [
            self._tools / "kubelet",
            "--config",
            self._folder / "kubelet.json",
            "--kubeconfig",
            self._state / "pki" / f"{self.name}.kubeconfig",
            "--hostname-override",
            self.name,
            "--root-dir",
            self._folder / "kubelet",
            "--cert-dir",
            self._folder / "kubelet-pki",
            "--node-ip",
            self._network.node_address(self._number),
        ]
        self._daemon("kubelet", kubelet)
        self._daemon("kube-proxy", [self._tools / "kube-proxy", "--config", self._folder / "kube-proxy.json"])

    def await_ready(self, plane: ControlPlane) -> None:
        def ready() -> bool:
            self._processes.require(self.component("kube-proxy"))
            node = plane.api.get(f"/api/v1/nodes/{self.name}") or {}
            conditions = node.get("status", {}).get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        self._processes.await_ready(self.component("kubelet"), ready, _PATIENCE)

    def lose(self) -> None:
        """As if somebody had pulled both of its cables: nothing says goodbye."""
        self._network.connect(self._number, connected=False)
        self.kill()

    def recover(self) -> None:
        """Power and network are back; kubelet finds its pods dead."""
        self._network.connect(self._number, connected=True)
        self.start_containerd()
        self.start_daemons()

    def kill(self) -> None:
        """The kubelet first, for it would start again what dies; then containers and their shims."""
        for daemon in reversed(DAEMONS):
            self._processes.kill(self.component(daemon))
        cgroups.kill(self.cgroup)
        for address in self._folder.glob("run/io.containerd.runtime.v2.task/*/*/address"):
            # A shim's socket lies in /run/containerd whatever the configuration says; a killed shim leaves it there.
            Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what a killed node leaves outside the state folder, or mounted in it."""
        self.kill()
        mounts.unmount_below(self._folder)
        for result in _CNI_RESULTS.glob(f"{self._cni_name}-*-eth0"):
            sandbox = result.name.removeprefix(f"{self._cni_name}-").removesuffix("-eth0")
            (_CNI_RESULTS / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)
            result.unlink()
        for link in _LOG_LINKS.glob("*.log"):
            with suppress(OSError):
                if link.readlink().is_relative_to(self._folder):
                    link.unlink()
        cgroups.remove(self.cgroup)

    def load(self, archive: Path) -> bool:
        """Import an archive unless its images are there with the same digests; whether it was imported."""
        notes = self.store / "loaded.json"
        known: dict[str, dict[str, str]] = json.loads(notes.read_text()) if notes.exists() else {}
        mark, before = images.fingerprint(archive), self._images()
        if (found := known.get(mark)) and found.items() <= before.items():
            return False
        done = self._run_ctr("images", "import", str(archive))
        if done.returncode:
            raise ClusterError(f"{self.name} could not import {archive}: {done.stderr.strip()}")
        after = self._images()
        names = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("unpacking ")]
        known[mark] = {name: after[name] for name in names if name in after}
        staged = notes.with_suffix(".new")
        staged.write_text(json.dumps(known, indent=1))
        staged.rename(notes)
        return True

    def component(self, daemon: str) -> str:
        return f"{self.name}/{daemon}"

    @property
    def _cni_name(self) -> str:
        return f"darkroom.{self._cluster}.{self.name}"

    def _daemon(self, daemon: str, command: list[str | Path]) -> None:
        self._processes.start(self.component(daemon), command, self._network.node_namespace(self._number))

    def _images(self) -> dict[str, str]:
        listed = self._ctr("images", "list") or ""
        return {line.split()[0]: line.split()[2] for line in listed.splitlines()[1:]}

    def _forget_containers(self) -> None:
        """The image store outlives its cluster, and so do the records of containers that died in it."""
        stale = (self._ctr("containers", "list", "--quiet") or "").split()
        if not stale:
            return
        self._ctr("containers", "delete", *stale)
        # The CRI plugin has read them into memory by now; it reads again when containerd starts again.
        self._processes.kill(self.component("containerd"))
        shutil.rmtree(self.store / "containerd/io.containerd.grpc.v1.cri", ignore_errors=True)
        self.start_containerd()

    def _ctr(self, *arguments: str) -> str | None:
        done = self._run_ctr(*arguments)
        return done.stdout if done.returncode == 0 else None

    def _run_ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ctr", "--address", str(self._socket), "--namespace", "k8s.io", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    def _prepare(self, plane: ControlPlane) -> None:
        self._check_sockets()
        for folder in ("kubelet", "pods", "cni", "leases", "volume-plugins", "run", "opt"):
            (self._folder / folder).mkdir(parents=True, exist_ok=True)
        self.store.mkdir(parents=True, exist_ok=True)
        cgroups.create(self.cgroup)
        hosts = [f"DNS:{self.name}", f"IP:{self._network.node_address(self._number)}"]
        plane.kubeconfig(self.name, f"/O=system:nodes/CN=system:node:{self.name}", hosts)
        facts = self._facts(plane)
        files = {
            "resolv.conf": "",  # the names that this machine knows are no business of the pods
            "containerd.toml": node_config.containerd(facts),
            "cni/10-pods.conflist": json.dumps(node_config.cni(facts)),
            "kubelet.json": json.dumps(node_config.kubelet(facts), indent=1),
            "kube-proxy.json": json.dumps(node_config.kube_proxy(facts, self.name), indent=1),
        }
        for name, content in files.items():
            (self._folder / name).write_text(content)

    def _facts(self, plane: ControlPlane) -> NodeFacts:
        certificate, key = plane.authority.pair(self.name)
        return NodeFacts(
            folder=self._folder,
            store=self.store,
            cgroup=self.cgroup,
            cni_name=self._cni_name,
            pod_network=self._network.pod_network(self._number),
            dns=self._network.gateway,
            kubeconfig=plane.kubeconfig("kube-proxy", "/CN=system:kube-proxy"),
            authority=plane.authority.certificate,
            certificate=certificate,
            key=key,
        )

    def _check_sockets(self) -> None:
        longest = self._folder / "kubelet/device-plugins/kubelet.sock"
        if len(os.fsencode(longest)) > _LONGEST_SOCKET:
            raise ClusterError(f"the path of a socket is too long: {longest}; take a shorter --name or XDG_STATE_HOME")


def image_stores(cluster: str) -> Path:
    """The image stores of all nodes that a cluster of this name ever had."""
    return cache_home() / "stores" / cluster
