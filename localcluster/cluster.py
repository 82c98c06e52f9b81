"""A cluster: up, down, and what tests do to it in between."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from localcluster import addons, binaries, packages, real, volumes
from localcluster.api import Api, write_kubeconfig
from localcluster.control_plane import AUDIT_LOG, COMPONENTS, ControlPlane, loopback_endpoint
from localcluster.errors import ClusterError
from localcluster.locks import exclusive
from localcluster.node import DAEMONS, LOSS_SECONDS, Node, image_stores
from localcluster.paths import clusters_home, name_on_host
from localcluster.pki import Authority
from localcluster.processes import Processes
from localcluster.progress import Report, Steps
from localcluster.record import Kind, Record, Size

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


def _silent(_line: str) -> None:
    return


class Cluster:
    """The cluster of this name; an object is only a handle, for state is on disk and processes are daemons."""

    def __init__(self, name: str = "darkroom", report: Report = _silent) -> None:
        if _NAME.fullmatch(name) is None:
            raise ClusterError(f"cluster name {name!r}: at most 20 of a-z, 0-9 and -, and it starts with a letter")
        self.name = name
        self._host_name = name_on_host(name)
        self.state = clusters_home() / name
        self._report = report
        self._processes = Processes(self.state)

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """Where a cluster that is up with `audit` writes every request: events of audit.k8s.io/v1, one a line."""
        return self.state / AUDIT_LOG

    @property
    def bin(self) -> Path:
        """The folder with kubectl, helm and the rest, built on first use."""
        return binaries.ensure(self._report)

    @property
    def nodes(self) -> str:
        """The size, as `up` takes it."""
        return str(self._require().size)

    @property
    def node_names(self) -> list[str]:
        """The real nodes, or the fake ones."""
        record = self._require()
        prefix = {Kind.REAL: "node", Kind.KWOK: "fake", Kind.NONE: ""}[record.size.kind]
        return [f"{prefix}-{number}" for number in range(1, record.size.count + 1)]

    @property
    def api(self) -> Api:
        endpoint = self._require().endpoint
        return Api(endpoint.host, endpoint.port, Authority(self.state / "pki"))

    def up(self, nodes: str = "none", *, audit: bool = False, gangs: bool = False) -> Cluster:
        """Start it, or return at once where it runs; remains of a killed run are cleared away first."""
        size = Size.parse(nodes)
        packages.require(packages.CERTIFICATES)
        if size.kind is Kind.REAL:
            real.check_host()
        tools = self.bin
        with self._lock():
            if self.is_up():
                self._same(size, audit=audit, gangs=gangs)
                self._report(f"cluster {self.name} is up already ({size})")
                return self
            self._clear("clearing the remains of an earlier run")
            steps = Steps(self._report)
            self._start(size, tools, steps, audit=audit, gangs=gangs)
            self._report(f"cluster {self.name} is up ({size}) after {steps.total:.1f} s")
        return self

    def down(self, *, purge: bool = False) -> None:
        """End every process and remove everything but the image stores; with purge those too."""
        with self._lock():
            self._clear(f"removing cluster {self.name}")
            if purge:
                shutil.rmtree(image_stores(self._host_name), ignore_errors=True)

    def is_up(self) -> bool:
        """Whether `up` got to its end, every daemon runs and the API server says that it is ready."""
        record = Record.load(self.state)
        if record is None or not record.complete:
            return False
        return all(self._processes.running(component) for component in _components(record)) and self.api.ready()

    def status(self) -> list[str]:
        """One line for each daemon."""
        record = self._require()
        lines = [f"cluster {self.name}: --nodes {record.size}, {record.endpoint.url}, {self.kubeconfig}"]
        for component in _components(record):
            pids = self._processes.pids(component)
            lines.append(f"  {component:<28}{f'pid {min(pids)}' if pids else 'not running'}")
        return lines

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - as subprocess.run has it
        """What kubectl prints; ClusterError with its complaint when it fails."""
        done = subprocess.run(
            [self.bin / "kubectl", "--kubeconfig", self.kubeconfig, *arguments],
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def load(self, archive: Path | str) -> None:
        """Import an image archive (OCI or docker) into every real node that lacks it."""
        with self._lock():
            for node in self._real_nodes():
                imported = node.load(Path(archive).resolve())
                self._report(f"{node.name}: {'imported' if imported else 'already has'} {archive}")

    def volume(
        self,
        claim: str,
        *,
        namespace: str = "default",
        size: str = "1Gi",
        read_only: bool = False,
        source: Path | str | None = None,
    ) -> Path:
        """A bound claim on a folder of this host, with the content of source copied in; the folder."""
        folder = self.state / "volumes" / namespace / claim
        with self._lock():
            volumes.fill(folder, Path(source) if source is not None else None, read_only=read_only)
            volumes.claim(self.api, folder, claim, namespace, size, read_only=read_only)
        return folder

    def stop_node(self, name: str) -> None:
        """Lose a real node: its daemons and containers die at once and its network is cut."""
        with self._lock():
            self._real_node(name).lose()

    def start_node(self, name: str) -> None:
        """Bring a lost node back, and wait until it is Ready."""
        with self._lock():
            node, record = self._real_node(name), self._require()
            node.recover()
            node.await_ready(ControlPlane(self.state, self.bin, record.endpoint))

    def kill(self, component: str) -> None:
        """SIGKILL etcd, the API server, the controller manager or the scheduler; it stays away until `revive`."""
        self._require_component(component)
        self._processes.kill(component)

    def revive(self, component: str) -> None:
        """Start one that was killed, and wait until the API server answers."""
        self._require_component(component)
        record = self._require()
        plane = ControlPlane(self.state, self.bin, record.endpoint)
        plane.revive(component, _loss_seconds(record.size), audit=record.audit, gangs=record.gangs)

    def _require_component(self, component: str) -> None:
        if component not in COMPONENTS:
            raise ClusterError(f"cluster {self.name} has no component {component}, only {' '.join(COMPONENTS)}")

    def _start(self, size: Size, tools: Path, steps: Steps, *, audit: bool, gangs: bool) -> None:
        self.state.mkdir(parents=True)
        if size.kind is Kind.REAL:
            record = real.claim_network(self._host_name, self.state, size)
            steps("network")
        else:
            record = Record(size, loopback_endpoint())
        record = replace(record, audit=audit, gangs=gangs)
        record.save(self.state)
        plane = ControlPlane(self.state, tools, record.endpoint)
        plane.start(steps, _loss_seconds(size), audit=audit, gangs=gangs)
        if size.kind is Kind.REAL:
            real.start_nodes(plane, real.nodes(self._host_name, self.state, tools, record), steps)
            addons.start_dns(self.state, tools, plane, real.network(self._host_name, record))
            addons.await_dns(self.state, real.network(self._host_name, record))
            steps("DNS")
        elif size.kind is Kind.KWOK:
            addons.start_kwok(self.state, tools, plane, size.count)
            addons.await_fake_nodes(self.state, plane, size.count)
            steps(f"{size.count} fake nodes")
        write_kubeconfig(self.kubeconfig, record.endpoint.url, plane.authority, "admin")
        record.completed().save(self.state)

    def _clear(self, why: str) -> None:
        if not self.state.exists() and not self._processes.pids():
            return
        self._report(why)
        self._processes.kill()
        real.clear(self._host_name, self.state)
        volumes.unlock(self.state / "volumes")
        shutil.rmtree(self.state)

    def _real_nodes(self) -> list[Node]:
        record = self._require()
        if record.size.kind is not Kind.REAL:
            raise ClusterError(
                f"cluster {self.name} has no real node (--nodes {record.size}): nothing there runs images"
            )
        return real.nodes(self._host_name, self.state, self.bin, record)

    def _real_node(self, name: str) -> Node:
        for node in self._real_nodes():
            if node.name == name:
                return node
        raise ClusterError(f"cluster {self.name} has no node {name}, only {' '.join(self.node_names)}")

    def _lock(self) -> AbstractContextManager[None]:
        return exclusive(clusters_home() / f".{self.name}.lock")

    def _require(self) -> Record:
        record = Record.load(self.state)
        if record is None:
            raise ClusterError(f"there is no cluster {self.name}: `python -m localcluster up --name {self.name}`")
        return record

    def _same(self, size: Size, *, audit: bool, gangs: bool) -> None:
        running = self._require()
        other = f"`python -m localcluster down --name {self.name}` first"
        if running.size != size:
            raise ClusterError(
                f"cluster {self.name} runs with --nodes {running.size}, not {size}: take another --name, or {other}"
            )
        for option, wanted, there in (("audit", audit, running.audit), ("gangs", gangs, running.gangs)):
            if wanted and not there:
                raise ClusterError(f"cluster {self.name} runs without --{option}: take another --name, or {other}")


def _loss_seconds(size: Size) -> int | None:
    return LOSS_SECONDS if size.kind is Kind.REAL else None


def _components(record: Record) -> list[str]:
    """The daemons that a cluster of this size has."""
    if record.size.kind is Kind.KWOK:
        return [*COMPONENTS, addons.KWOK]
    nodes = range(1, record.size.count + 1) if record.size.kind is Kind.REAL else ()
    dns = [addons.DNS] if record.size.kind is Kind.REAL else []
    return [*COMPONENTS, *dns, *(f"node-{number}/{daemon}" for number in nodes for daemon in DAEMONS)]
