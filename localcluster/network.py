"""The network of a real cluster: one segment, and a network namespace for the control plane and for each node.

    host --veth-- [control plane: bridge, API server, CoreDNS] --veth-- [node-1: pods]
                                                               --veth-- [node-2: pods]

Everything but the host's end of one veth pair lies in namespaces of the cluster's own and goes with them.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from localcluster.errors import ClusterError

POD_NETWORK = "10.244.0.0/16"
_FIRST_NODE = 10
_NUMBERS = range(1, 250)
_BRIDGE = "cluster0"
_UPLINK = "uplink0"
# Pods leave the pod network under their node's address, for neither the host nor anybody behind it knows theirs.
_MASQUERADE = f"""
table ip localcluster {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {POD_NETWORK} ip daddr != {POD_NETWORK} masquerade
  }}
}}
"""


class Network:
    """The network with this number of the cluster of this name."""

    def __init__(self, cluster: str, number: int) -> None:
        self._cluster = cluster
        self.number = number
        self._prefix = f"198.18.{number}"  # of the range that RFC 2544 sets aside for tests of networks
        self.control_plane = f"darkroom.{cluster}"
        self.gateway = f"{self._prefix}.1"
        self._host = f"{self._prefix}.254"
        self._host_link = f"darkroom{number}"

    def node_namespace(self, node: int) -> str:
        return f"{self.control_plane}.node-{node}"

    def node_address(self, node: int) -> str:
        return f"{self._prefix}.{_FIRST_NODE + node}"

    @staticmethod
    def pod_network(node: int) -> str:
        return f"10.244.{node}.0/24"

    def create(self, nodes: int) -> None:
        """Lay it all out."""
        _ip("", f"netns add {self.control_plane}")
        _ip(
            "",
            f"link add {self._host_link} type veth peer name host0 netns {self.control_plane}",
            f"address add {self._host}/24 dev {self._host_link}",
            f"link set {self._host_link} up",
        )
        self._sysctl(self.control_plane)
        _ip(
            self.control_plane,
            "link set lo up",
            f"link add {_BRIDGE} type bridge",
            f"address add {self.gateway}/24 dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
            f"link set host0 master {_BRIDGE}",
            "link set host0 up",
        )
        for node in range(1, nodes + 1):
            self._create_node(node)
        for node in range(1, nodes + 1):
            self._route(node, nodes)

    def _create_node(self, node: int) -> None:
        namespace, port = self.node_namespace(node), f"node{node}"
        _ip("", f"netns add {namespace}")
        _ip(
            self.control_plane,
            f"link add {port} type veth peer name {_UPLINK} netns {namespace}",
            f"link set {port} master {_BRIDGE}",
            f"link set {port} up",
        )
        _ip(
            namespace,
            "link set lo up",
            f"address add {self.node_address(node)}/24 dev {_UPLINK}",
            f"link set {_UPLINK} up",
        )
        self._sysctl(namespace)
        _in(namespace, "nft", "--file", "-", text=_MASQUERADE)

    @staticmethod
    def _sysctl(namespace: str) -> None:
        # A connection of a killed process to a lost peer would keep the namespace alive for minutes.
        _in(namespace, "sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1", "net.ipv4.tcp_orphan_retries=1")

    def _route(self, node: int, nodes: int) -> None:
        """Every other pod network lies behind its node; Services need a default route before they are rewritten."""
        namespace = self.node_namespace(node)
        _ip(
            namespace,
            f"route add default via {self._host}",
            *(
                f"route add {self.pod_network(other)} via {self.node_address(other)}"
                for other in range(1, nodes + 1)
                if other != node
            ),
        )
        _ip(self.control_plane, f"route add {self.pod_network(node)} via {self.node_address(node)}")

    def remove(self, nodes: int) -> None:
        """Remove every namespace of the cluster; links, bridge, routes and nft tables go with them."""
        # The kernel takes a namespace apart later; the host's link, whose number another may want, goes now. It is
        # ours only if our namespace exists: a run may have been killed before it laid out anything.
        namespaces = [self.control_plane, *(self.node_namespace(node) for node in range(1, nodes + 1))]
        there = [namespace for namespace in namespaces if Path("/run/netns", namespace).exists()]
        if self.control_plane in there and Path("/sys/class/net", self._host_link).exists():
            _ip("", f"link delete {self._host_link}")
        for namespace in there:
            _ip("", f"netns delete {namespace}")

    def connect(self, node: int, *, connected: bool) -> None:
        """Plug the cable of a node in, or pull it."""
        _ip(self.control_plane, f"link set node{node} {'up' if connected else 'down'}")


def free_number() -> int:
    """A number that no cluster on this host has, whosever it is: the links of the host tell."""
    listed = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
    links = {link["ifname"] for link in json.loads(listed)}
    for number in _NUMBERS:
        if f"darkroom{number}" not in links:
            return number
    raise ClusterError("all networks are taken: `down` some cluster first")


def _ip(namespace: str, *lines: str) -> None:
    """A batch in one process; the first line that fails ends it."""
    command = ["ip", *(["-netns", namespace] if namespace else []), "-batch", "-"]
    _run(command, "\n".join(lines) + "\n")


def _in(namespace: str, *command: str, text: str = "") -> None:
    _run(["nsenter", f"--net=/run/netns/{namespace}", "--", *command], text)


def _run(command: list[str], text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"network: {' '.join(command)} failed: {done.stderr.strip()}\n{text}")
