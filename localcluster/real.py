"""What a cluster of real nodes takes from the host, and gives back."""

from __future__ import annotations

import os
from pathlib import Path

from localcluster import network as networks
from localcluster import packages
from localcluster.control_plane import ControlPlane, Endpoint
from localcluster.errors import ClusterError
from localcluster.locks import exclusive
from localcluster.network import Network
from localcluster.node import Node
from localcluster.paths import cache_home
from localcluster.progress import Steps
from localcluster.record import Kind, Record, Size


def check_host() -> None:
    """Raise, with what to do, unless this process may and can run real nodes."""
    if os.geteuid() != 0:
        raise ClusterError(
            "real nodes need root (network namespaces, cgroups, containerd): run as root, "
            "or take --nodes none or kwok:COUNT"
        )
    packages.require(packages.NODE)


def claim_network(cluster: str, state: Path, size: Size) -> Record:
    """Take a free network and lay it out; written down first, so that it is found after a kill."""
    with exclusive(_networks()):
        number = networks.free_number()
        network = Network(cluster, number)
        endpoint = Endpoint(network.gateway, 6443, (2379, 2380), network.control_plane)
        record = Record(size, endpoint, number)
        record.save(state)
        network.create(size.count)
    return record


def network(cluster: str, record: Record) -> Network:
    if record.network is None:
        raise ClusterError(f"cluster {cluster} has no network of its own (--nodes {record.size})")
    return Network(cluster, record.network)


def _networks() -> Path:
    """The lock on what the clusters of all state homes share: the host's links."""
    return cache_home() / ".network.lock"


def nodes(cluster: str, state: Path, tools: Path, record: Record) -> list[Node]:
    own = network(cluster, record)
    return [Node(cluster, state, tools, own, number) for number in range(1, record.size.count + 1)]


def start_nodes(plane: ControlPlane, started: list[Node], steps: Steps) -> None:
    """Start them all, then wait for all: their slow half is the API server's and overlaps."""
    for node in started:
        node.start(plane)
    steps("containerd, kubelet and kube-proxy")
    for node in started:
        node.await_ready(plane)
    steps("nodes Ready")


def clear(cluster: str, state: Path) -> None:
    """Give everything back; the daemons are dead by now, containers may not be."""
    record = Record.load(state)
    if record is None or record.size.kind is not Kind.REAL:
        return
    with exclusive(_networks()):
        for node in nodes(cluster, state, Path(), record):
            node.clear()
        network(cluster, record).remove(record.size.count)
