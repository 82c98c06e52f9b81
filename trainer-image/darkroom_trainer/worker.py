"""One training process, as the launcher starts it: joins the group, trains, and always leaves its facts behind."""

import ctypes
import importlib
import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from darkroom_api.report import Action, ExitCode, Reason, Reply, TerminationMessage
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer import watchdog
from darkroom_trainer.clock import Clock, now, process_start
from darkroom_trainer.errors import ConfigError, TrainerError, headline
from darkroom_trainer.launch import CLOCK_FILE, CONFIG_FILE
from darkroom_trainer.live import Line
from darkroom_trainer.report import Facts, running
from darkroom_trainer.verdict import reason_of

_PR_SET_PDEATHSIG = 1


class AskedToLeave(BaseException):
    """Raised where a signal arrives before training has begun: there is nothing to save, and nothing to agree on."""


class Stop:
    """What makes this process leave: SIGTERM or SIGINT, or a command of the operator.

    `asked` is what the training loop shares with the other processes, `take` is in which way to leave once all know.
    """

    def __init__(self) -> None:
        self.training = False
        self._signalled = False
        self._command: Action | None = None
        self._obeyed: set[Action] = set()
        self._ends_at: float | None = None

    @property
    def asked(self) -> bool:
        return self._signalled or self._command is not None

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        first, self._signalled = not self._signalled, True
        if first and not self.training:
            raise AskedToLeave

    def hear(self, reply: Reply) -> None:
        """What the operator answers to a report. Called by another thread."""
        self._ends_at = None if reply.seconds_left is None else now() + reply.seconds_left
        self.obey(Action(reply.action))

    def seconds_left(self) -> float | None:
        """Until the budget is spent, by the operator's last word; None: it has said nothing, or there is no limit."""
        ends_at = self._ends_at
        return None if ends_at is None else ends_at - now()

    def obey(self, action: Action) -> None:
        """A command, each once: the operator repeats it until the process has left."""
        if action != Action.CONTINUE and action not in self._obeyed:
            self._obeyed.add(action)
            self._command = action

    def take(self) -> Action:
        """A signal comes first: the pod is about to go, whatever else was asked for."""
        command, self._command = self._command, None
        return Action.YIELD if self._signalled or command is None else command


def main(folder: Path, *, task: str | None) -> int:
    """Never returns to the interpreter: its exit would wait for threads of a group that may be broken."""
    facts = Facts(rank=int(os.environ.get("RANK", "0")), pid=os.getpid(), message=running())
    level = logging.INFO if facts.rank == 0 else logging.WARNING  # what all of them know is said once
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    stop = Stop()
    try:
        stop.listen()
        facts.write(folder)
        watchdog.answer(folder)
        _die_with_parent()
        _train(folder, task, facts, stop)
    except AskedToLeave:
        _end(facts.message, ExitCode.ASKED_TO_LEAVE, Reason.ASKED_TO_LEAVE)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        known = code if code in set(ExitCode) else ExitCode.SOFTWARE_ERROR
        _end(facts.message, known, reason_of(known), error=f"exit code {code}" if code else None)
    except BaseException as error:
        _fail(facts.message, error)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    facts.ended = True
    facts.write(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(facts.message.exit_code)


def _train(folder: Path, task_name: str | None, facts: Facts, stop: Stop) -> None:
    content = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    config = TrainerConfig.model_validate_json(content)
    if config.vision.deterministic:  # read when CUDA starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    heart = watchdog.Heart(folder)
    clock = _clock(folder, heart)

    from darkroom_trainer.host import Host
    from darkroom_trainer.measure import settled
    from darkroom_trainer.parallel import join
    from darkroom_trainer.train import train

    config = settled(config)
    with clock.spend("rendezvous"):
        group = join()
    task = _make_task(config, task_name)

    def began() -> None:
        stop.training = facts.training = True
        facts.nccl = group.world > 1 and group.device.type == "cuda"
        facts.write(folder)  # from now on a signal is answered with a checkpoint

    host = Host(
        group=group,
        clock=clock,
        message=facts.message,
        stop=lambda: stop.asked,
        began=began,
        alive=heart.alive,
        seconds_left=stop.seconds_left,
        publish=lambda: facts.write(folder),
        leaving=stop.take,
    )
    line = Line.open(os.environ, stop.hear) if group.leads else None
    if line:
        host.tell = lambda eta: line.tell(facts.message, eta)
    try:
        train(config, task, host)
    finally:
        facts.message.time = clock.seconds()
    group.leave()


def _clock(folder: Path, heart: watchdog.Heart) -> Clock:
    """Began with the launcher: its own start, the nodes' meeting, then this process's start.

    Where the group has changed, the meeting is the newest, and what the workers before spent is spent.
    """
    marks = json.loads((folder / CLOCK_FILE).read_text(encoding="utf-8"))
    clock = Clock(marks["start"], turned=heart.beat, spent=marks["spent"])
    clock.switch("rendezvous", at=marks["rendezvous"])
    clock.switch("startup", at=max(marks["rendezvous"], process_start()))
    return clock


def _make_task(config: TrainerConfig, name: str | None) -> Any:
    """The built-in task, or the one of `--task module:function`."""
    if name is None:
        from darkroom_trainer.tasks import make_task

        return make_task(config)
    module, _, function = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--task {name}: {error}") from error
    return factory(config)


def _fail(message: TerminationMessage, error: BaseException) -> None:
    trace = "".join(traceback.format_exception(error))
    print(trace, file=sys.stderr, flush=True)
    if isinstance(error, TrainerError):
        _end(message, error.exit_code, error.reason, error=headline(error))
    elif _lost(error):
        _end(message, ExitCode.SOFTWARE_ERROR, Reason.PEER_LOST, error=headline(error))
    else:
        _end(message, ExitCode.SOFTWARE_ERROR, Reason.SOFTWARE_ERROR, error=headline(error) + _hint(error))
    message.log_tail = trace


def _lost(error: BaseException) -> bool:
    if "torch.distributed" not in sys.modules:
        return False
    from darkroom_trainer.parallel import is_peer_loss

    return is_peer_loss(error)


def _hint(error: BaseException) -> str:
    return "; a smaller vision.microBatchSize needs less memory" if type(error).__name__ == "OutOfMemoryError" else ""


def _end(message: TerminationMessage, code: int, reason: Reason, *, error: str | None = None) -> None:
    message.exit_code, message.reason, message.error = int(code), reason, error and error[:1024]


def _die_with_parent() -> None:
    """Leave, with a checkpoint, if the launcher is killed: on a laptop there is no container to end its processes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
