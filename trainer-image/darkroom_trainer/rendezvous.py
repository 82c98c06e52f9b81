"""Torchrun's environment (PET_*), read into facts: who the nodes are and where they meet.

The names are those of torchrun's own options, so the same environment starts a bare torchrun.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom_api import names
from darkroom_trainer.errors import ConfigError

LAST_CALL_SECONDS = 10
"""An elastic group that has its minimum waits so long for more: a node that comes later costs all of them a restart."""
NO_KEEP_ALIVES = 10**6
"""Missed ones until a node counts as lost: never. Torch compares a node's wall clock with another's."""


@dataclass(frozen=True)
class Rendezvous:
    """How this node's agent joins the others. timeout: seconds to wait for them."""

    min_nodes: int = 1
    max_nodes: int = 1
    processes: int = 1
    node_rank: int = 0
    backend: str = "c10d"
    endpoint: str = ""
    run_id: str = "standalone"
    timeout: int = 600
    local_addr: str | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Rendezvous":
        """From PET_*; one node and a free port where nothing is set. Raises ConfigError with the variable's name."""
        least, nodes = _nodes(environ)
        node_rank = _whole(environ, "PET_NODE_RANK", default=0, least=0)
        if node_rank >= nodes:
            raise ConfigError(f"PET_NODE_RANK is {node_rank}, but PET_NNODES is {nodes}: nodes are counted from 0")
        standalone = nodes == 1 and not environ.get("PET_RDZV_ENDPOINT")
        backend = "c10d" if standalone else environ.get("PET_RDZV_BACKEND", "c10d").lower()
        if backend == "static" and least < nodes:
            raise ConfigError(f"PET_NNODES is {environ['PET_NNODES']!r}, which PET_RDZV_BACKEND static cannot do")
        return cls(
            min_nodes=least,
            max_nodes=nodes,
            processes=_processes(environ),
            node_rank=node_rank,
            backend=backend,
            endpoint=f"127.0.0.1:{_free_port()}" if standalone else _endpoint(environ, backend),
            run_id=environ.get("PET_RDZV_ID") or "standalone",
            timeout=_whole(environ, "PET_RDZV_TIMEOUT", default=600, least=1),
            local_addr="127.0.0.1" if standalone else environ.get("PET_LOCAL_ADDR") or environ.get(names.ENV_POD_IP),
        )

    @property
    def elastic(self) -> bool:
        """Whether the group may grow and shrink."""
        return self.min_nodes < self.max_nodes

    def configs(self) -> dict[str, Any]:
        """Backend's options. is_host is explicit: torch's guess compares host names and can be wrong in a pod.

        read_timeout bounds one attempt to reach the store, and every question to it later: a node whose peer lost its
        power must not hang in one; the launcher repeats attempts until `timeout`. Only an elastic group watches keep-alives:
        in any other one, a lost node is the end of the attempt, and a clock that is wrong must not be.
        """
        if self.backend == "static":
            return {"rank": self.node_rank, "timeout": self.timeout}
        last_call, never = {"last_call_timeout": LAST_CALL_SECONDS}, {"keep_alive_max_attempt": NO_KEEP_ALIVES}
        return {
            **(last_call if self.elastic else never),
            "is_host": self.node_rank == 0,
            "timeout": self.timeout,
            "join_timeout": self.timeout,
            "read_timeout": min(60, self.timeout),
        }


def _nodes(environ: Mapping[str, str]) -> tuple[int, int]:
    """PET_NNODES: a number, or `least:most` as torchrun has it."""
    least, colon, most = environ.get("PET_NNODES", "").partition(":")
    if not colon:
        nodes = _whole(environ, "PET_NNODES", default=1, least=1)
        return nodes, nodes
    if not (least.isdigit() and most.isdigit() and 1 <= int(least) <= int(most)):
        raise ConfigError(f"PET_NNODES is {environ['PET_NNODES']!r}: a number of nodes, or least:most")
    return int(least), int(most)


def _processes(environ: Mapping[str, str]) -> int:
    """PET_NPROC_PER_NODE: a number, or `auto`, `gpu`, `cpu` as torchrun has it."""
    told = environ.get("PET_NPROC_PER_NODE", "1").lower()
    if told not in {"auto", "gpu", "cpu"}:
        return _whole(environ, "PET_NPROC_PER_NODE", default=1, least=1)
    import torch

    if told == "cpu" or (told == "auto" and not torch.cuda.is_available()):
        return 1 if told == "auto" else len(os.sched_getaffinity(0))
    return max(1, torch.cuda.device_count())


def _endpoint(environ: Mapping[str, str], backend: str) -> str:
    host, port = environ.get("PET_MASTER_ADDR"), environ.get("PET_MASTER_PORT", str(names.MASTER_PORT))
    endpoint = environ.get("PET_RDZV_ENDPOINT", "")
    if backend == "static":
        endpoint = f"{host}:{port}" if host else endpoint
    elif backend != "c10d":
        raise ConfigError(f"PET_RDZV_BACKEND is {backend!r}: c10d or static")
    elif not endpoint and host:
        endpoint = f"{host}:{names.RENDEZVOUS_PORT}"
    if not endpoint:
        raise ConfigError("PET_NNODES is greater than 1: PET_RDZV_ENDPOINT or PET_MASTER_ADDR must say where they meet")
    return endpoint


def _whole(environ: Mapping[str, str], name: str, *, default: int, least: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdigit() or int(text) < least:
        raise ConfigError(f"{name} is {text!r}: a whole number from {least} on")
    return int(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
