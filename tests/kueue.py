"""Kueue beside the control plane: CRDs and webhooks as its own module ships them, its manager a daemon of this machine."""

from __future__ import annotations

import base64
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from localcluster.binaries import KUEUE, ensure_one, source_of
from localcluster.cluster import Cluster
from localcluster.pki import Authority
from localcluster.processes import Processes

NAMESPACE = "kueue-system"
_COMPONENT = "kueue"
_PATIENCE = 60.0
_CERTIFICATES = "kueue/metrics/certs"
"""Below /etc: the manager looks for one there even where it serves no metrics."""
_SEES = ("unshare", "--mount", "sh", "-c", 'mount -t overlay overlay -o "lowerdir=$0:/etc" /etc && exec "$@"')
"""Runs a command that sees a folder's files in /etc, while nothing is written there."""
_SERVED = frozenset({"jobs", "workloads", "clusterqueues", "cohorts", "resourceflavors"})
"""Resources whose webhooks the manager serves with batch/job as its only integration."""


def start(cluster: Cluster, report: Callable[[str], None] = lambda _: None) -> None:
    """Install the CRDs, start the manager, and send it the requests that its webhooks are for."""
    binary, source = ensure_one(KUEUE, report), source_of(KUEUE, "sigs.k8s.io/kueue") / "config/components"
    for file in sorted((source / "crd/bases").glob("*.yaml")):
        cluster.kubectl("apply", "--server-side", "--filename", str(file))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    cluster.kubectl("apply", "--server-side", "--filename", "-", input=yaml.safe_dump(namespace))
    folder = cluster.state / _COMPONENT
    certificates = folder / "etc" / _CERTIFICATES
    certificates.mkdir(parents=True, exist_ok=True)
    authority = Authority(cluster.state / "pki")
    for made, name in zip(authority.issue("kueue", "/CN=kueue", ["IP:127.0.0.1"]), ("tls.crt", "tls.key"), strict=True):
        shutil.copy(made, certificates / name)
    port, health = _free_port(), _free_port()
    (folder / "config.yaml").write_text(yaml.safe_dump(_configuration(certificates, port, health)))
    processes = Processes(cluster.state)
    command = [binary, "--config", folder / "config.yaml", "--kubeconfig", cluster.kubeconfig]
    processes.start(_COMPONENT, [*_SEES, folder / "etc", *command, "--feature-gates=VisibilityOnDemand=false"])
    processes.await_ready(_COMPONENT, lambda: _is_ready(health), _PATIENCE)
    webhooks = _webhooks(source / "webhook/manifests.yaml", f"https://127.0.0.1:{port}", authority.certificate)
    cluster.kubectl("apply", "--server-side", "--filename", "-", input=yaml.safe_dump_all(webhooks))


def stop(cluster: Cluster) -> None:
    """End it. The CRDs stay, and with them the queues; Jobs are made without its webhooks again."""
    for kind in ("mutating", "validating"):
        name = f"kueue-{kind}-webhook-configuration"
        cluster.kubectl("delete", f"{kind}webhookconfiguration", name, "--ignore-not-found")
    Processes(cluster.state).kill(_COMPONENT)


def _configuration(folder: Path, port: int, health: int) -> dict[str, Any]:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(folder)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
    }


def _webhooks(file: Path, url: str, authority: Path) -> list[dict[str, Any]]:
    """As they are shipped, but for the address: there is no pod, and so no Service, in front of the manager."""
    bundle = base64.b64encode(authority.read_bytes()).decode()
    made = []
    for body in yaml.safe_load_all(file.read_text()):
        kept = [hook for hook in body["webhooks"] if _SERVED & {r for rule in hook["rules"] for r in rule["resources"]}]
        for hook in kept:
            path = hook["clientConfig"]["service"]["path"]
            hook["clientConfig"] = {"url": url + path, "caBundle": bundle}
        body["metadata"]["name"] = f"kueue-{body['metadata']['name']}"
        made.append(body | {"webhooks": kept})
    return made


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
