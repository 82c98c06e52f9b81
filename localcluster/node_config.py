"""The configuration files of a node's daemons, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.images import PAUSE
from localcluster.network import POD_NETWORK

_CNI_PLUGINS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class NodeFacts:
    """What the files are written from."""

    folder: Path  # the node's part of the cluster's state
    store: Path  # its image store, which outlives it
    cgroup: str
    cni_name: str
    pod_network: str
    dns: str
    kubeconfig: Path  # kube-proxy's
    authority: Path
    certificate: Path
    key: Path

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"


def containerd(node: NodeFacts) -> str:
    """containerd 1.6 or 1.7 (version 2 of the format)."""
    return f"""\
version = 2
root = "{node.store}/containerd"
state = "{node.folder}/run"
# Snapshotters that probe the machine, and tracing that looks for a collector.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{node.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{node.folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Lowering a score needs CAP_SYS_RESOURCE, which root in a container or sandbox often lacks.
  restrict_oom_score_adj = true
  # Network namespaces of pods then lie where `down` looks for mounts.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI_PLUGINS}"
    conf_dir = "{node.folder}/cni"
"""


def cni(node: NodeFacts) -> dict[str, Any]:
    """Point to point, not a bridge: an answer from a pod of the same node then passes the rules of kube-proxy."""
    return {
        "cniVersion": "1.0.0",
        "name": node.cni_name,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(node.folder / "leases"),
                    "ranges": [[{"subnet": node.pod_network}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def kubelet(node: NodeFacts) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "podLogsDir": str(node.folder / "pods"),
        "volumePluginDir": str(node.folder / "volume-plugins"),
        "resolvConf": str(node.folder / "resolv.conf"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [node.dns],
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(node.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(node.certificate),
        "tlsPrivateKeyFile": str(node.key),
        # A lost node must be noticed in seconds; the lease is renewed four times in its duration.
        "nodeLeaseDurationSeconds": 12,
        "nodeStatusUpdateFrequency": "5s",
        # A disk that is nearly full is the developer's affair, and their images must stay.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    }


def kube_proxy(node: NodeFacts, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(node.kubeconfig)},
        "hostnameOverride": name,
        "mode": "nftables",
        "clusterCIDR": POD_NETWORK,
        # The size of the connection table belongs to the machine; a namespace may not set it.
        "conntrack": {"maxPerCore": 0},
    }
