"""What stands beside a control plane: CoreDNS for real nodes, KWOK for fake ones."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

from localcluster.control_plane import ControlPlane
from localcluster.network import Network
from localcluster.processes import Processes

DNS = "coredns"
KWOK = "kwok"
_STAGES = Path(__file__).with_name("stages.yaml")
_PATIENCE = 30.0
# As an administrator: the cluster is thrown away, and neither has a role among those that Kubernetes brings along.
_ADMINISTRATOR = "/O=system:masters/CN={}"


def start_dns(state: Path, tools: Path, plane: ControlPlane, network: Network) -> None:
    """CoreDNS on the gateway, where all pods reach it; it knows the cluster's names and no others."""
    kubeconfig = plane.kubeconfig(DNS, _ADMINISTRATOR.format(DNS))
    corefile = state / "Corefile"
    # The parser wants the closing brace on a line of its own, and the context's name.
    corefile.write_text(f"""\
.:53 {{
  bind {network.gateway}
  errors
  ready {network.gateway}:8181
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig} localcluster
    pods insecure
    ttl 5
  }}
  cache 5 cluster.local
}}
""")
    Processes(state).start(DNS, [tools / "coredns", "-conf", corefile], network.control_plane)


def await_dns(state: Path, network: Network) -> None:
    Processes(state).await_ready(
        DNS, lambda: _resolves("kubernetes.default.svc.cluster.local", network.gateway), _PATIENCE
    )


def _resolves(name: str, server: str) -> bool:
    """Whether the server has an address for the name: one question, one answer."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        try:
            client.sendto(question, (server, 53))
            answer = client.recv(512)
        except OSError:
            return False
    code, answers = answer[3] & 0x0F, struct.unpack("!H", answer[6:8])[0]
    return code == 0 and answers > 0


def start_kwok(state: Path, tools: Path, plane: ControlPlane, count: int) -> None:
    """Fake nodes, and the program that plays their kubelets by stages.yaml."""
    kubeconfig = plane.kubeconfig(KWOK, _ADMINISTRATOR.format(KWOK))
    for number in range(1, count + 1):
        plane.api.create("/api/v1/nodes", _fake_node(f"fake-{number}"))
    Processes(state).start(
        KWOK,
        [
            tools / "kwok",
            "--kubeconfig",
            kubeconfig,
            "--manage-nodes-with-label-selector",
            "type=kwok",
            # Without leases nodes are taken for lost after 50 s, and their pods never become Ready again.
            "--node-lease-duration-seconds",
            "40",
            "--config",
            _STAGES,
        ],
        environment={"KWOK_WORKDIR": str(state / "kwok")},
    )  # by itself it reads the user's own configuration


def await_fake_nodes(state: Path, plane: ControlPlane, count: int) -> None:
    def all_ready() -> bool:
        nodes = (plane.api.get("/api/v1/nodes?labelSelector=type%3Dkwok") or {}).get("items", [])
        ready = [
            node
            for node in nodes
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        return len(ready) == count

    Processes(state).await_ready(KWOK, all_ready, _PATIENCE + count / 10)


def _fake_node(name: str) -> dict[str, Any]:
    """As large as a node for training is, so that the scheduler decides by what real pods ask for."""
    resources = {"cpu": "96", "memory": "1Ti", "ephemeral-storage": "4Ti", "pods": "110", "nvidia.com/gpu": "8"}
    labels = {
        "type": "kwok",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": resources, "capacity": resources},
    }
