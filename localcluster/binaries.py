"""Programs built from Go modules and cached by their content: those of a cluster are in go/."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.locks import exclusive
from localcluster.paths import cache_home

MODULES = Path(__file__).parent / "go"
KUBERNETES_VERSION = "1.36.3"
_OLDEST_GO = (1, 21)  # the first that fetches the newer toolchain which a go.mod asks for
_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Module:
    """A folder with a go.mod: one binary, and the names that it is called by."""

    name: str
    programs: tuple[str, ...]
    stamps: tuple[str, ...] = ()
    package: str = "."
    """What is built: the folder itself, or a program of a module that its go.mod names."""
    root: Path = MODULES

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def flags(self) -> tuple[str, ...]:
        linker = " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in self.stamps)])
        return ("-trimpath", "-buildvcs=false", "-mod=readonly", f"-ldflags={linker}")

    @property
    def key(self) -> str:
        """Changes with every file of the module (go.mod has the versions), the flags and the machine."""
        digest = hashlib.sha256(repr((platform.machine(), self.flags)).encode())
        for file in sorted(self.folder.iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()[:16]

    @property
    def binary(self) -> Path:
        return _store() / f"{self.name}-{self.key}"


KUEUE = Module("kueue", ("kueue",), package="sigs.k8s.io/kueue/cmd/kueue")
"""Not among ALL: only tests of queues run it, and it takes two minutes to build."""
KUBERNETES = Module(
    "kubernetes",
    ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
    # Unstamped, nodes and clients report a template in place of a version.
    (f"{_VERSION}.gitVersion=v{KUBERNETES_VERSION}", f"{_VERSION}.gitMajor=1", f"{_VERSION}.gitMinor=36"),
)
ALL = (
    KUBERNETES,
    Module("coredns", ("coredns",)),
    Module("kwok", ("kwok",)),
    Module("helm", ("helm",), ("helm.sh/helm/v4/internal/version.version=v4.3.1",)),
    Module("pause", ("pause",)),
)


def _store() -> Path:
    return cache_home() / "bin"


def ensure(report: Callable[[str], None], modules: Sequence[Module] = ALL) -> Path:
    """Build what is missing; the folder returned holds every program under its own name."""
    key = hashlib.sha256("".join(module.key for module in modules).encode()).hexdigest()[:16]
    tools = _store() / f"tools-{key}"
    if tools.is_dir() and all(module.binary.is_file() for module in modules):
        return tools
    with exclusive(_store() / ".lock"):
        for remains in _store().glob(".build-*"):
            shutil.rmtree(remains)  # of a build that was killed: the lock is ours, so nobody works there
        for module in modules:
            if not module.binary.is_file():
                _build(module, report)
        _link(tools, modules)
    return tools


def ensure_one(module: Module, report: Callable[[str], None]) -> Path:
    """Build a program that is not in every cluster, if it is missing; returns the binary."""
    with exclusive(_store() / ".lock"):
        if not module.binary.is_file():
            _build(module, report)
    return module.binary


def source_of(module: Module, dependency: str) -> Path:
    """The folder of a module's dependency in Go's own cache, for the manifests that it ships."""
    for arguments in (
        ("list", "-mod=readonly", "-m", "-f", "{{.Dir}}"),
        ("mod", "download"),
        ("list", "-m", "-f", "{{.Dir}}"),
    ):
        done = subprocess.run(
            [find_go(), *arguments, dependency],
            cwd=module.folder,
            env={**os.environ, "GOFLAGS": "", "GOWORK": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
        if arguments[0] == "list" and (folder := done.stdout.strip()):
            return Path(folder)
    raise ClusterError(f"go could not fetch {dependency}, which {module.folder} names:\n{done.stderr.strip()}")


def _build(module: Module, report: Callable[[str], None]) -> None:
    """A binary appears under its name only when it is whole: a killed build leaves none behind."""
    report(
        f"building {module.name} (the first build of Kubernetes takes five to ten minutes)"
        if module is KUBERNETES
        else f"building {module.name}"
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_store(), prefix=".build-") as folder:
        output = Path(folder) / module.name
        done = subprocess.run(
            [find_go(), "build", *module.flags, "-o", str(output), module.package],
            cwd=module.folder,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"go could not build {module.folder}:\n{done.stderr.strip()}")
        output.rename(module.binary)
    report(f"built {module.name} in {time.monotonic() - started:.0f} s")


def _link(tools: Path, modules: Sequence[Module]) -> None:
    """Symbolic links, for the binary looks at the name that it was called by."""
    if tools.is_dir():
        return  # its name says what it holds, and another cluster may be starting from it
    with tempfile.TemporaryDirectory(dir=_store(), prefix=".build-") as folder:
        staged = Path(folder) / "tools"
        staged.mkdir(mode=0o755)
        for module in modules:
            for program in module.programs:
                (staged / program).symlink_to(Path("..") / module.binary.name)
        staged.rename(tools)


def find_go() -> str:
    """The Go command, even where its usual folder is not on PATH."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise ClusterError("Go is missing: run `python -m localcluster setup` as root, or put `go` on PATH")
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST_GO:
        raise ClusterError(
            f"{go} is {said.strip() or 'broken'}: Go {'.'.join(map(str, _OLDEST_GO))} or newer is "
            "needed (it fetches the toolchain of go.mod by itself); put a newer `go` on PATH"
        )
    return go
