"""How a node's processes ended, in one word: which of them failed first, and was it the cause."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from darkroom_api.report import ExitCode, Reason, TerminationMessage
from darkroom_trainer.report import Facts, running
from darkroom_trainer.watchdog import Stall

_KNOWN = {
    ExitCode.DONE: Reason.COMPLETED,
    ExitCode.DATA_ERROR: Reason.DATA_ERROR,
    ExitCode.SOFTWARE_ERROR: Reason.SOFTWARE_ERROR,
    ExitCode.ASKED_TO_LEAVE: Reason.ASKED_TO_LEAVE,
    ExitCode.CONFIG_ERROR: Reason.CONFIG_ERROR,
    ExitCode.FIDELITY_TOO_LOW: Reason.FIDELITY_TOO_LOW,
}


def reason_of(exit_code: int) -> Reason:
    """What an exit code means where nobody gave a reason."""
    return _KNOWN.get(ExitCode(exit_code), Reason.SOFTWARE_ERROR) if exit_code in _KNOWN else Reason.SOFTWARE_ERROR


def judge(
    workers: Sequence[Facts],
    exit_codes: Mapping[int, int],
    *,
    asked: bool,
    oom_killed: bool,
    over: bool = False,
    stall: Stall | None = None,
    launcher_error: str | None = None,
) -> TerminationMessage:
    """The node's message: the progress of its first worker, the ending of the one that is to blame.

    workers: what they told, by rank; exit_codes: by global rank, negative for signals, of workers that failed; asked:
    this node was told to leave; oom_killed: the cgroup's counter rose; over: the training had ended before this node got
    in; stall: who hung, and was ended for it; launcher_error: what broke outside of the workers.
    """
    message = workers[0].message.model_copy(deep=True) if workers else running()
    ending = (
        _first_cause(workers)
        or _hung(stall, asked=asked)
        or _silent_death(workers, exit_codes, asked=asked)
        or _left(workers, asked=asked)
        or _consequence(workers)
        or _done(workers, over=over)
        or _broken(launcher_error)
    )
    if oom_killed and ending["reason"] != Reason.OUT_OF_MEMORY and _is_killing(ending):
        ending |= {"reason": Reason.OUT_OF_MEMORY, "exit_code": int(ExitCode.KILLED)}
        ending["error"] = f"the kernel killed a process that ran out of the pod's memory limit ({ending['error']})"
    return message.model_copy(update={"rank": None, "error": None, "log_tail": None, **ending})


def _ending(facts: Facts) -> dict[str, object]:
    told = facts.message
    ending = {"reason": told.reason, "exit_code": told.exit_code, "rank": facts.rank, "error": told.error}
    return ending | {"log_tail": told.log_tail}


def _first_cause(workers: Sequence[Facts]) -> dict[str, object] | None:
    """The earliest failure that is none of another's consequences."""
    innocent = {Reason.PEER_LOST, Reason.ASKED_TO_LEAVE}
    failed = [w for w in workers if w.ended and w.message.exit_code != 0 and w.message.reason not in innocent]
    return _ending(min(failed, key=lambda facts: facts.at)) if failed else None


def _hung(stall: Stall | None, *, asked: bool) -> dict[str, object] | None:
    """The watchdog ended it; or it did not leave when it was told to, which another node's watchdog may have caused."""
    if stall is None:
        return None
    if asked:
        error = f"left before a new checkpoint could be written: rank {stall.rank}: {stall.error}"
        leaving = {"reason": Reason.ASKED_TO_LEAVE, "exit_code": int(ExitCode.ASKED_TO_LEAVE), "error": error}
        return leaving | {"log_tail": stall.stacks}
    hung = {"reason": Reason.NO_PROGRESS, "exit_code": int(ExitCode.SOFTWARE_ERROR), "rank": stall.rank}
    return hung | {"error": stall.error, "log_tail": stall.stacks}


def _silent_death(workers: Sequence[Facts], exit_codes: Mapping[int, int], *, asked: bool) -> dict[str, object] | None:
    """A worker that ended without a word: killed by a signal, or by an exit of its own before it could speak.

    SIGKILL comes last: it may be the launcher's, for a worker that hung after another one had crashed.
    """
    spoke = {facts.rank for facts in workers if facts.ended}
    for rank, code in sorted(exit_codes.items(), key=lambda item: (item[1] == -signal.SIGKILL, item[0])):
        if rank in spoke or -code in {signal.SIGTERM, signal.SIGINT} or (asked and code == -signal.SIGKILL):
            continue  # those signals came from its launcher
        if code == -signal.SIGKILL:
            return {"reason": Reason.KILLED, "exit_code": int(ExitCode.KILLED), "rank": rank, "error": "SIGKILL"}
        if code == -signal.SIGABRT and any(facts.rank == rank and facts.nccl for facts in workers):
            return _aborted_by_nccl(rank)
        error = f"killed by {_name(-code)}" if code < 0 else f"exit code {code}"
        known = code if code in _KNOWN else int(ExitCode.SOFTWARE_ERROR)
        return {"reason": reason_of(code), "exit_code": known, "rank": rank, "error": error}
    return None


def _aborted_by_nccl(rank: int) -> dict[str, object]:
    """NCCL's watchdog ends the process of a rank whose peer does not answer; no exception reaches the trainer."""
    error = "SIGABRT, as NCCL's watchdog sends it when another process went away or hangs"
    return {"reason": Reason.PEER_LOST, "exit_code": int(ExitCode.SOFTWARE_ERROR), "rank": rank, "error": error}


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _consequence(workers: Sequence[Facts]) -> dict[str, object] | None:
    lost = [w for w in workers if w.ended and w.message.reason == Reason.PEER_LOST]
    return _ending(min(lost, key=lambda facts: facts.at)) if lost else None


def _left(workers: Sequence[Facts], *, asked: bool) -> dict[str, object] | None:
    if not asked and not any(w.ended and w.message.reason == Reason.ASKED_TO_LEAVE for w in workers):
        return None
    done = workers and all(w.ended and w.message.exit_code == 0 for w in workers)
    if done:
        return None  # told to leave when everything was over
    saved = any(w.ended and w.message.reason == Reason.ASKED_TO_LEAVE for w in workers)
    error = None if saved else "left before a new checkpoint could be written"
    return {"reason": Reason.ASKED_TO_LEAVE, "exit_code": int(ExitCode.ASKED_TO_LEAVE), "error": error}


def _done(workers: Sequence[Facts], *, over: bool) -> dict[str, object] | None:
    if over and not workers:
        return {"reason": Reason.COMPLETED, "exit_code": int(ExitCode.DONE)}
    done = workers and all(w.ended and w.message.exit_code == 0 for w in workers)
    return {"reason": workers[0].message.reason, "exit_code": int(ExitCode.DONE)} if done else None


def _broken(launcher_error: str | None) -> dict[str, object]:
    """No worker is to blame: the nodes did not meet, or the launcher has a bug."""
    met = launcher_error and "rendezvous" in launcher_error.lower()
    return {
        "reason": Reason.PEER_LOST if met else Reason.SOFTWARE_ERROR,
        "exit_code": int(ExitCode.SOFTWARE_ERROR),
        "error": launcher_error or "a worker ended without a word",
    }


def _is_killing(ending: Mapping[str, object]) -> bool:
    """SIGKILL of a worker, or of a loader process, which the worker only hears of."""
    return ending["reason"] == Reason.KILLED or "DataLoader worker" in str(ending.get("error"))


def oom_kills(cgroup: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc/self/cgroup")) -> int:
    """Processes of this cgroup that the kernel's OOM killer has killed so far, by cgroup v2 or v1; 0 if unknown."""
    for path in _counters(cgroup, proc):
        try:
            fields = dict(line.split() for line in path.read_text().splitlines())
            return int(fields["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def _counters(cgroup: Path, proc: Path) -> list[Path]:
    """Own group first; in a container the mount's root is the own group, whatever path /proc tells."""
    found = []
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found.append(cgroup / "memory" / path.lstrip("/") / "memory.oom_control")
        elif not controllers:
            found.append(cgroup / path.lstrip("/") / "memory.events")
    return [*found, cgroup / "memory.events", cgroup / "memory" / "memory.oom_control"]
