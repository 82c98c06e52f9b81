"""etcd, the API server, the controller manager and the scheduler."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.api import Api, write_kubeconfig
from localcluster.pki import Authority
from localcluster.processes import Processes

SERVICE_NETWORK = "10.96.0.0/16"
_FIRST_SERVICE = "10.96.0.1"  # the API server's own Service always gets the first address
_PATIENCE = 60.0
_GANG_GATES = "GenericWorkload=true,GangScheduling=true"
_GANG_API = "scheduling.k8s.io/v1alpha2=true"
AUDIT_LOG = "audit.log"
_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True)
class Endpoint:
    """Where a control plane listens; netns is the network namespace that it runs in, the host's if None."""

    host: str
    port: int
    etcd_ports: tuple[int, int]
    netns: str | None = None

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"


def loopback_endpoint() -> Endpoint:
    """Ports of the host that are free now, from below the range that the kernel hands to clients."""
    ports: list[int] = []
    while len(ports) < 3:
        port = random.randint(20_000, 30_000)  # noqa: S311 - not a secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return Endpoint("127.0.0.1", ports[0], (ports[1], ports[2]))


class ControlPlane:
    """The control plane of the cluster in the folder `state`."""

    def __init__(self, state: Path, tools: Path, endpoint: Endpoint) -> None:
        self.authority = Authority(state / "pki")
        self.api = Api(endpoint.host, endpoint.port, self.authority)
        self._state = state
        self._tools = tools
        self._endpoint = endpoint
        self._processes = Processes(state)

    def start(
        self, step: Callable[[str], None], node_loss_seconds: int | None, *, audit: bool = False, gangs: bool = False
    ) -> None:
        """Bring everything up in order; with node_loss_seconds a silent node is given up after so long."""
        self._certificates()
        step("certificates")
        commands = self._commands(node_loss_seconds, audit=audit, gangs=gangs)
        self._start("etcd", commands["etcd"])
        self._start("kube-apiserver", commands["kube-apiserver"])
        self._processes.await_ready("kube-apiserver", self._api_server_ready, _PATIENCE)
        step("etcd and API server")
        self._start("kube-controller-manager", commands["kube-controller-manager"])
        self._start("kube-scheduler", commands["kube-scheduler"])
        self._processes.await_ready("kube-controller-manager", self._has_default_account, _PATIENCE)
        step("controller manager and scheduler")

    def revive(
        self, component: str, node_loss_seconds: int | None, *, audit: bool = False, gangs: bool = False
    ) -> None:
        """Start one component that was killed, as `start` did; once etcd or the API server is back, wait until it answers."""
        self._start(component, self._commands(node_loss_seconds, audit=audit, gangs=gangs)[component])
        if component in ("etcd", "kube-apiserver") and self._processes.running("kube-apiserver"):
            self._processes.await_ready("kube-apiserver", self._api_server_ready, _PATIENCE)

    def _commands(self, node_loss_seconds: int | None, *, audit: bool, gangs: bool) -> dict[str, list[str | Path]]:
        gates: list[str | Path] = ["--feature-gates", _GANG_GATES] if gangs else []
        more = [*(self._audit() if audit else []), *([*gates, "--runtime-config", _GANG_API] if gangs else [])]
        return {
            "etcd": self._etcd(),
            "kube-apiserver": [*self._api_server(node_loss_seconds), *more],
            "kube-controller-manager": [*self._controller_manager(node_loss_seconds), *gates],
            "kube-scheduler": [*self._scheduler(), *gates],
        }

    def kubeconfig(self, client: str, subject: str, hosts: Sequence[str] = ()) -> Path:
        """A kubeconfig for a component, with a certificate of its own (a server's too, where it has hosts)."""
        file = self._state / "pki" / f"{client}.kubeconfig"
        if not file.is_file():
            self.authority.issue(client, subject, hosts)
            write_kubeconfig(file, self._endpoint.url, self.authority, client)
        return file

    def _start(self, component: str, command: list[str | Path]) -> None:
        self._processes.start(component, command, self._endpoint.netns)

    def _certificates(self) -> None:
        self.authority.create()
        names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ]
        addresses = dict.fromkeys([_FIRST_SERVICE, self._endpoint.host, "127.0.0.1"])
        hosts = [*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)]
        self.authority.issue("kube-apiserver", "/CN=kube-apiserver", hosts)
        # The API server is an administrator of every kubelet: that is how logs, exec and port-forward get through.
        self.authority.issue("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        self.authority.issue("admin", "/O=system:masters/CN=admin")

    def _etcd(self) -> list[str | Path]:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._endpoint.etcd_ports)
        return [
            self._tools / "etcd",
            "--name",
            "localcluster",
            "--data-dir",
            self._state / "etcd",
            "--listen-client-urls",
            client,
            "--advertise-client-urls",
            client,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            f"localcluster={peer}",
            "--unsafe-no-fsync",  # nothing here has to survive a power cut
            "--log-level",
            "warn",
        ]

    def _api_server(self, node_loss_seconds: int | None) -> list[str | Path]:
        certificate, key = self.authority.pair("kube-apiserver")
        kubelet_certificate, kubelet_key = self.authority.pair("kubelet-client")
        return [
            self._tools / "kube-apiserver",
            "--etcd-servers",
            f"http://127.0.0.1:{self._endpoint.etcd_ports[0]}",
            "--bind-address",
            self._endpoint.host,
            "--secure-port",
            str(self._endpoint.port),
            "--advertise-address",
            self._endpoint.host,
            "--tls-cert-file",
            certificate,
            "--tls-private-key-file",
            key,
            "--client-ca-file",
            self.authority.certificate,
            "--authorization-mode",
            "Node,RBAC",
            "--enable-admission-plugins",
            # The second is off by default, and on in OpenShift: whoever blocks an owner's deletion needs a right for it.
            "NodeRestriction,OwnerReferencesPermissionEnforcement",
            "--allow-privileged=true",
            "--service-cluster-ip-range",
            SERVICE_NETWORK,
            "--service-account-issuer",
            "https://kubernetes.default.svc.cluster.local",
            "--service-account-key-file",
            self.authority.service_account_public,
            "--service-account-signing-key-file",
            self.authority.service_account_key,
            "--kubelet-certificate-authority",
            self.authority.certificate,
            "--kubelet-client-certificate",
            kubelet_certificate,
            "--kubelet-client-key",
            kubelet_key,
            # Node names resolve nowhere; without this `kubectl logs` asks a resolver for them.
            "--kubelet-preferred-address-types",
            "InternalIP",
            # Webhooks are called at their pods' addresses: there is no kube-proxy beside the API server.
            "--enable-aggregator-routing=true",
            *self._reachability(node_loss_seconds),
        ]

    def _audit(self) -> list[str | Path]:
        """Who asked for what, and the answer's code: a line of JSON for each request that was answered, and two for a watch."""
        policy = self._state / "audit-policy.yaml"
        policy.write_text(_AUDIT_POLICY)
        log = self._state / AUDIT_LOG
        return ["--audit-policy-file", policy, "--audit-log-path", log, "--audit-log-maxsize", "10000"]

    def _reachability(self, node_loss_seconds: int | None) -> list[str]:
        if self._endpoint.netns is None:
            # The loopback address isn't allowed in an EndpointSlice, and no pod of a fake node would use it.
            return ["--endpoint-reconciler-type", "none"]
        if node_loss_seconds is None:
            return []
        seconds = str(node_loss_seconds)
        return ["--default-not-ready-toleration-seconds", seconds, "--default-unreachable-toleration-seconds", seconds]

    def _controller_manager(self, node_loss_seconds: int | None) -> list[str | Path]:
        account = "/CN=system:kube-controller-manager"
        loss = ["--node-monitor-grace-period", f"{node_loss_seconds}s", "--node-monitor-period", "2s"]
        return [
            self._tools / "kube-controller-manager",
            "--kubeconfig",
            self.kubeconfig("kube-controller-manager", account),
            "--root-ca-file",
            self.authority.certificate,
            "--service-account-private-key-file",
            self.authority.service_account_key,
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port",
            "0",
            # The default of 20 requests a second would be the floor of everything measured on many Jobs.
            "--kube-api-qps",
            "1000",
            "--kube-api-burst",
            "2000",
            *(loss if node_loss_seconds is not None else []),
        ]

    def _scheduler(self) -> list[str | Path]:
        return [
            self._tools / "kube-scheduler",
            "--kubeconfig",
            self.kubeconfig("kube-scheduler", "/CN=system:kube-scheduler"),
            "--leader-elect=false",
            "--secure-port",
            "0",
            "--kube-api-qps",
            "1000",
            "--kube-api-burst",
            "2000",
        ]

    def _api_server_ready(self) -> bool:
        self._processes.require("etcd")  # without its store the API server waits for ever, and says little
        return self.api.ready()

    def _has_default_account(self) -> bool:
        return self.api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None
