"""The agent of one node: torchrun's own launcher, called from our process so that nothing it learns gets lost.

The torchrun command turns every outcome into exit code 1. Here a worker's own code survives, SIGTERM ends with "asked to
leave", and the termination message says which rank failed first and why. The environment is torchrun's (PET_*).
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom_api import names
from darkroom_api.report import ExitCode, Reason, TerminationMessage
from darkroom_trainer.clock import ENV_RENDEZVOUS, ENV_STARTED, process_started
from darkroom_trainer.report import ENV_FACTS, read_facts

GRACE_SECONDS = 30
"""For workers to save and leave after SIGTERM; the pod's own grace period is longer."""


@dataclass(frozen=True)
class Failure:
    """A worker that ended badly."""

    rank: int
    exit_code: int
    timestamp: int


@dataclass(frozen=True)
class Ended:
    """How the node's workers ended."""

    failures: tuple[Failure, ...] = ()
    terminated: bool = False
    """The agent itself got a signal."""
    error: str | None = None
    """The agent failed, as by a rendezvous that nobody joined."""
    out_of_memory: bool = False
    """The kernel killed something of this container meanwhile."""


def run_node(config_text: str) -> int:
    """Run this node's workers to their end; returns the exit code and leaves the termination message."""
    started, ooms = process_started(), oom_kills()
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        config_file = Path(folder, "config.json")
        config_file.write_text(config_text)
        os.environ |= {ENV_FACTS: folder, ENV_STARTED: str(started), ENV_RENDEZVOUS: str(time.time())}
        ended = _launch(config_file)
        if oom_kills() > ooms:
            ended = Ended(ended.failures, ended.terminated, ended.error, out_of_memory=True)
        message = conclude(ended, read_facts(Path(folder)))
    spent = time.time() - started - sum(message.time.values())
    message = message.model_copy(
        update={"time": message.time | {"other": round(message.time.get("other", 0.0) + max(0.0, spent), 3)}}
    )
    write_termination_message(message)
    return message.exit_code


def _launch(config_file: Path) -> Ended:
    _leave_on_signal()
    try:
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import elastic_launch
    except _Signalled:
        return Ended(terminated=True)
    command = ("-m", "darkroom_trainer", "worker", str(config_file))
    try:
        elastic_launch(launch_config(os.environ), sys.executable)(*command)
        return Ended()
    except ChildFailedError as error:
        return Ended(tuple(Failure(rank, f.exitcode, int(f.timestamp)) for rank, f in sorted(error.failures.items())))
    except (_Signalled, SignalException):
        return Ended(terminated=True)
    except Exception as error:
        return Ended(error=f"{type(error).__name__}: {error}".splitlines()[0])


class _Signalled(BaseException):
    """SIGTERM before torch's own handler was there: while importing, or waiting for the other nodes."""


def _leave_on_signal() -> None:
    def on_signal(_number: int, _frame: Any) -> None:
        raise _Signalled

    signal.signal(signal.SIGTERM, on_signal)  # as process 1 of a container there is no default action


def launch_config(environment: Mapping[str, str]) -> Any:
    """torchrun's configuration from its environment (torch.distributed.run); alone on this machine where nothing is set."""
    from torch.distributed.launcher.api import LaunchConfig

    nodes, rank = int(environment.get("PET_NNODES", 1)), int(environment.get("PET_NODE_RANK", 0))
    backend = environment.get("PET_RDZV_BACKEND", "c10d")
    rendezvous: dict[str, Any] = {"timeout": int(environment.get("PET_RDZV_TIMEOUT", 900))}
    if backend == "static":
        endpoint = f"{environment['PET_MASTER_ADDR']}:{environment.get('PET_MASTER_PORT', names.MASTER_PORT)}"
        rendezvous["rank"] = rank
    else:
        endpoint = environment.get("PET_RDZV_ENDPOINT", "localhost:0")
        rendezvous["is_host"] = rank == 0  # torch would guess from host names, and can be wrong in a pod
    return LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=int(environment.get("PET_NPROC_PER_NODE", 1)),
        run_id=environment.get("PET_RDZV_ID", f"local-{os.getpid()}"),
        rdzv_backend=backend,
        rdzv_endpoint=endpoint,
        rdzv_configs=rendezvous,
        max_restarts=0,
        monitor_interval=0.1,
        local_addr=environment.get("PET_LOCAL_ADDR") or ("localhost" if nodes == 1 else None),
        shutdown_timeout=GRACE_SECONDS,
    )


def conclude(ended: Ended, facts: Mapping[int, TerminationMessage]) -> TerminationMessage:
    """One message for the node: the progress of its first rank, and the reason of the rank that failed first."""
    empty = TerminationMessage(reason=Reason.SOFTWARE_ERROR, exit_code=int(ExitCode.SOFTWARE_ERROR))
    base = facts[min(facts)] if facts else empty
    if ended.failures:
        return _blame(base, ended, facts)
    if ended.terminated:
        return _left(base, facts)
    if ended.error:
        reason = Reason.PEER_LOST if "Rendezvous" in ended.error else Reason.SOFTWARE_ERROR
        return base.model_copy(
            update={"reason": reason, "exit_code": int(ExitCode.SOFTWARE_ERROR), "error": ended.error[:1000]}
        )
    return base.model_copy(update={"exit_code": int(ExitCode.DONE), "rank": None})


def _blame(base: TerminationMessage, ended: Ended, facts: Mapping[int, TerminationMessage]) -> TerminationMessage:
    verdicts = [(_verdict(failure, ended, facts.get(failure.rank)), failure) for failure in ended.failures]
    consequences = (Reason.PEER_LOST, Reason.ASKED_TO_LEAVE)
    verdicts.sort(key=lambda pair: (pair[0].reason in consequences, pair[1].timestamp, pair[1].rank))
    verdict, failure = verdicts[0]
    return base.model_copy(
        update={
            "reason": verdict.reason,
            "exit_code": verdict.exit_code,
            "error": verdict.error,
            "rank": None if verdict.reason == Reason.ASKED_TO_LEAVE else failure.rank,
        }
    )


def _verdict(failure: Failure, ended: Ended, said: TerminationMessage | None) -> TerminationMessage:
    """What one failed worker gets on record."""
    code, known = failure.exit_code, {int(c) for c in ExitCode}
    if code == -signal.SIGKILL:
        reason = Reason.OUT_OF_MEMORY if ended.out_of_memory else Reason.KILLED
        error = f"rank {failure.rank} was killed (SIGKILL)" + (" for lack of memory" if ended.out_of_memory else "")
        return TerminationMessage(reason=reason, exit_code=int(ExitCode.KILLED), error=error)
    if said is not None and said.exit_code == code:
        return said
    final = code if code in known and code > 0 else int(ExitCode.SOFTWARE_ERROR)
    names_of = {65: Reason.DATA_ERROR, 75: Reason.ASKED_TO_LEAVE, 78: Reason.CONFIG_ERROR}
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return TerminationMessage(
        reason=names_of.get(final, Reason.SOFTWARE_ERROR),
        exit_code=final,
        error=f"rank {failure.rank} ended with {cause}",
    )


def _left(base: TerminationMessage, facts: Mapping[int, TerminationMessage]) -> TerminationMessage:
    """SIGTERM: what a worker failed of before it could leave still counts; otherwise the node left as asked."""
    hopeless = (Reason.DATA_ERROR, Reason.CONFIG_ERROR)
    for said in facts.values():
        if said.reason in hopeless:
            return base.model_copy(update={"reason": said.reason, "exit_code": said.exit_code, "error": said.error})
    return base.model_copy(
        update={"reason": Reason.ASKED_TO_LEAVE, "exit_code": int(ExitCode.ASKED_TO_LEAVE), "error": None, "rank": None}
    )


def oom_kills() -> int:
    """How often the kernel's OOM killer struck in this container (cgroup v2, then v1); 0 where nobody counts."""
    for file in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            lines = dict(line.split() for line in Path(file).read_text().splitlines())
        except (OSError, ValueError):
            continue
        return int(lines.get("oom_kill", 0))
    return 0


def write_termination_message(message: TerminationMessage) -> None:
    """Leave it where kubelet reads it; without such a place it is nobody's business."""
    place = os.environ.get(names.ENV_TERMINATION_LOG)
    if place:
        Path(place).write_text(message.encode())
