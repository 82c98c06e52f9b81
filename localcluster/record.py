"""What a cluster is, written down before its first process starts and read by every later command."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from localcluster.control_plane import Endpoint
from localcluster.errors import ClusterError

_MAX_REAL_NODES = 8
_SIZE = re.compile(r"none|(?P<kind>real|kwok)(:(?P<count>[1-9][0-9]{0,3}))?")


class Kind(StrEnum):
    """Where pods run: nowhere, on paper (KWOK), or in containers."""

    NONE = "none"
    KWOK = "kwok"
    REAL = "real"


@dataclass(frozen=True)
class Size:
    """What --nodes says."""

    kind: Kind
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> Size:
        found = _SIZE.fullmatch(text)
        if found is None or (found["kind"] == "kwok" and found["count"] is None):
            raise ClusterError(f"--nodes {text}: expected none, kwok:COUNT, real or real:COUNT (COUNT up to 9999)")
        if found["kind"] is None:
            return cls(Kind.NONE)
        size = cls(Kind(found["kind"]), int(found["count"] or 1))
        if size.kind is Kind.REAL and size.count > _MAX_REAL_NODES:
            raise ClusterError(f"--nodes {text}: at most {_MAX_REAL_NODES} real nodes; for more take kwok:{size.count}")
        return size

    def __str__(self) -> str:
        return self.kind if self.kind is Kind.NONE else f"{self.kind}:{self.count}"


@dataclass(frozen=True)
class Record:
    """The facts of one cluster."""

    size: Size
    endpoint: Endpoint
    network: int | None = None  # which of the numbered networks a real cluster has
    audit: bool = False  # the API server writes an audit log
    gangs: bool = False  # the native gang scheduling API is served
    complete: bool = False  # `up` got to its end

    def save(self, state: Path) -> None:
        staged = state / "cluster.json.new"
        staged.write_text(json.dumps({**asdict(self), "size": str(self.size)}, indent=2) + "\n")
        staged.rename(state / "cluster.json")

    @classmethod
    def load(cls, state: Path) -> Record | None:
        try:
            facts = json.loads((state / "cluster.json").read_text())
        except FileNotFoundError:
            return None
        endpoint = facts.pop("endpoint")
        ports = tuple(endpoint.pop("etcd_ports"))
        return cls(**{**facts, "size": Size.parse(facts["size"]), "endpoint": Endpoint(**endpoint, etcd_ports=ports)})

    def completed(self) -> Record:
        return replace(self, complete=True)
