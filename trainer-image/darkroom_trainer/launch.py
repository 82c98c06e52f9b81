"""The launcher of one node: starts its processes with torch's elastic agent, and turns how they end into one message.

Bare torchrun ends with 1 whatever happened: exit codes of workers are lost, and so is the difference between a crash and
a node that was asked to leave. Here torch's launcher API runs in a thread. The main thread stays free for signals, which
it would otherwise see only when torch returns from a blocking call into its C++ store, up to a minute later.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from darkroom_api import names
from darkroom_api.report import ExitCode, Reason, TerminationMessage
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.clock import Clock, now, process_start
from darkroom_trainer.errors import ConfigError, TrainerError, headline
from darkroom_trainer.rendezvous import Rendezvous
from darkroom_trainer.report import Facts, write_termination_message
from darkroom_trainer.verdict import judge, oom_kills
from darkroom_trainer.watchdog import Silent, Stall, Watchdog, describe, seconds_of

CONFIG_FILE, CLOCK_FILE = "config.json", "clock.json"
_GRACE = 25.0  # seconds: Kubernetes' default grace period of 30 less a margin to write the message
_STARTING_GRACE = 3.0  # for workers that have not begun to train, and so have nothing to save
_LAST_LOOK = 1.0  # for the stacks of a worker that does not leave: the pod itself is about to be killed
_POLL, _WATCH = 0.05, 1.0


def main(config: Path | None, *, task: str | None = None) -> int:
    """Run this node's part of a training; the exit code. Writes the termination message, whatever happens."""
    stop = _Stop()
    stop.listen()
    clock = Clock(process_start())
    node = _Node(task=task, stop=stop, clock=clock)
    try:
        message = node.run(config)
    except TrainerError as error:
        message = TerminationMessage(reason=error.reason, exit_code=error.exit_code, error=headline(error))
    except Exception as error:
        logging.getLogger(__name__).exception("the launcher failed")
        message = TerminationMessage(
            reason=Reason.SOFTWARE_ERROR, exit_code=ExitCode.SOFTWARE_ERROR, error=headline(error)
        )
    _account(message, clock)
    _say(message)
    path = os.environ.get(names.ENV_TERMINATION_LOG)
    try:
        write_termination_message(message, Path(path) if path else None)
    except OSError as error:
        print(f"darkroom: {path} cannot be written: {error.strerror}", file=sys.stderr)
    if node.hangs:  # torch waits for a node that will not answer; nobody waits for torch
        sys.stdout.flush()
        os._exit(message.exit_code)
    return message.exit_code


class _Stop:
    """SIGTERM and SIGINT; asking twice changes nothing."""

    def __init__(self) -> None:
        self.asked_at: float | None = None

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        self.asked_at = self.asked_at or now()

    @property
    def asked(self) -> bool:
        return self.asked_at is not None


class _Node:
    """This node's workers, from the configuration to the message."""

    def __init__(self, *, task: str | None, stop: _Stop, clock: Clock) -> None:
        self._task, self._stop, self._clock = task, stop, clock
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        self._exit_codes: dict[int, int] = {}
        self._error: str | None = None
        self._told: set[int] = set()
        self._stall: Stall | None = None
        self._stalled_at = 0.0

    @property
    def hangs(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def run(self, config: Path | None) -> TerminationMessage:
        """Raises ConfigError for a configuration that no worker could use."""
        content = read_config(config, os.environ)
        rendezvous = Rendezvous.read(os.environ)
        kills = oom_kills()
        with TemporaryDirectory(prefix="darkroom-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / CONFIG_FILE).write_text(json.dumps(content.to_wire()), encoding="utf-8")
            self._thread = threading.Thread(target=self._launch, args=(rendezvous, folder), daemon=True)
            self._thread.start()
            limit = seconds_of(os.environ)
            watchdog = Watchdog(folder, limit) if limit else None
            looked = now()
            while self.hangs and not self._abandoned(folder, rendezvous.processes):
                self._thread.join(_POLL)
                if watchdog and now() - looked > _WATCH:
                    looked = now()
                    self._watch(folder, watchdog)
            workers = Facts.read_all(folder)
            for worker in workers:  # loader processes outlive a worker that was killed
                _kill_group(worker.pid)
            return judge(
                workers,
                self._exit_codes,
                asked=self._stop.asked,
                oom_killed=oom_kills() > kills,
                stall=self._stall,
                launcher_error=self._error,
            )

    def _watch(self, folder: Path, watchdog: Watchdog) -> None:
        """End every worker of this node once one hangs; those of other nodes wait for it, and go with their peers."""
        workers = Facts.read_all(folder)
        silent = watchdog.silent(workers)
        if silent and not self._stall and not self._stop.asked:
            self._stall, self._stalled_at = describe(folder, workers, silent), now()
            self._kill_all(workers)

    def _kill_all(self, workers: Sequence[Facts]) -> None:
        for worker in workers:
            if not worker.ended:
                _kill_group(worker.pid)

    def _abandoned(self, folder: Path, processes: int) -> bool:
        """Pass a signal on; whether there is nothing left to wait for."""
        if self._stall and not self._stop.asked:
            return now() - self._stalled_at > 2 * _STARTING_GRACE
        if self._stop.asked_at is None:
            return False
        if not self._started.is_set():
            return True  # still meeting the other nodes: nothing to save
        workers, waited = Facts.read_all(folder), now() - self._stop.asked_at
        for worker in workers:
            if worker.pid not in self._told and not worker.ended:
                _kill(worker.pid, signal.SIGTERM)
                self._told.add(worker.pid)
        training = any(worker.training for worker in workers)
        if waited > (_grace() if training else _STARTING_GRACE):
            late = next((worker for worker in workers if not worker.ended), None)
            if training and late and not self._stall:
                silent = Silent(late, waited, "leaving")
                self._stall = describe(folder, workers, silent, within=_LAST_LOOK)
            self._kill_all(workers)
            return waited > 2 * _STARTING_GRACE  # the agent notices, unless it hangs itself
        return len(workers) == processes and all(worker.ended for worker in workers) and waited > _STARTING_GRACE

    def _launch(self, rendezvous: Rendezvous, folder: Path) -> None:
        """In a thread: torch's agent until all workers have ended, or one has failed."""
        try:
            self._elastic(rendezvous, folder)
        except BaseException as error:  # its class is torch's, and torch is imported in there
            failures = getattr(error, "failures", {})
            self._exit_codes = {rank: failure.exitcode for rank, failure in failures.items()}
            self._error = None if failures else headline(error)

    def _elastic(self, rendezvous: Rendezvous, folder: Path) -> None:
        from torch.distributed.elastic.rendezvous import RendezvousConnectionError
        from torch.distributed.launcher.api import elastic_launch

        _quieten()
        began = now()
        self._clock.switch("rendezvous")
        marks = {"start": self._clock.start, "rendezvous": began}
        (folder / CLOCK_FILE).write_text(json.dumps(marks), encoding="utf-8")
        command = ["-m", "darkroom_trainer", "worker", str(folder), *([self._task] if self._task else [])]
        while True:
            try:
                elastic_launch(self._config(rendezvous), sys.executable)(*command)
                return
            except RendezvousConnectionError:  # node 0 is not there yet, or its name is not
                if self._started.is_set() or now() - began > rendezvous.timeout:
                    raise
                time.sleep(1)

    def _config(self, rendezvous: Rendezvous) -> Any:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.launcher.api import LaunchConfig

        node = self

        class Starting(DefaultLogsSpecs):
            """Asked for log files right before the workers start: the moment from which there are any."""

            def reify(self, envs: Any) -> Any:
                node._started.set()
                if node._stop.asked:
                    raise TrainerError("asked to leave")
                return super().reify(envs)

        return LaunchConfig(
            min_nodes=rendezvous.nodes,
            max_nodes=rendezvous.nodes,
            nproc_per_node=rendezvous.processes,
            run_id=rendezvous.run_id,
            role="trainer",
            rdzv_backend=rendezvous.backend,
            rdzv_endpoint=rendezvous.endpoint,
            rdzv_configs=rendezvous.configs(),
            local_addr=rendezvous.local_addr,
            max_restarts=0,  # restarts are the operator's
            monitor_interval=0.1,
            logs_specs=Starting(),
            shutdown_timeout=int(_grace()),
        )


def read_config(path: Path | None, environ: Mapping[str, str]) -> TrainerConfig:
    """From the file, or from DARKROOM_CONFIG. Raises ConfigError with one line for each wrong field."""
    source, text = str(path), environ.get(names.ENV_CONFIG)
    try:
        if path is not None:
            text = path.read_text(encoding="utf-8")
        else:
            source = names.ENV_CONFIG
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} cannot be read: {getattr(error, 'strerror', error)}") from error
    if text is None:
        raise ConfigError(f"no configuration: name a file, or set {names.ENV_CONFIG} to the JSON of one")
    try:
        return TrainerConfig.from_wire(text)
    except ValidationError as error:
        lines = [_readable(problem) for problem in error.errors(include_url=False)]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from error


def _readable(problem: Mapping[str, Any]) -> str:
    """`vision.batchSize: Input should be a valid integer`."""
    place = ".".join(map(str, problem["loc"]))
    match problem["type"]:
        case "extra_forbidden":
            text = "no such field"
        case "string_type" if isinstance(problem["input"], int | float):  # the API has no floats
            text = f'a number in quotes is expected, as "{problem["input"]}"'
        case _:
            text = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {text}" if place else text


def _account(message: TerminationMessage, clock: Clock) -> None:
    """What this process knows of the time: all of it before there were workers, and what remained after them."""
    seconds = clock.seconds()
    if message.time:
        rest = sum(seconds.values()) - sum(message.time.values())
        seconds = message.time | {"other": message.time.get("other", 0.0) + max(0.0, rest)}
    message.time = {bucket: round(value, 3) for bucket, value in seconds.items()}


def _say(message: TerminationMessage) -> None:
    rank = f"rank {message.rank}: " if message.rank is not None and message.error else ""
    why = f": {rank}{message.error}" if message.error else ""
    step = f" at step {message.step}/{message.steps}" if message.steps else ""
    print(f"darkroom: {message.reason} ({int(message.exit_code)}){step}{why}", file=sys.stderr, flush=True)


def _grace() -> float:
    """Seconds that workers get to save and leave; torchrun's --shutdown-timeout has the same variable."""
    with suppress(ValueError):
        return max(1.0, float(os.environ.get("PET_SHUTDOWN_TIMEOUT", _GRACE)))
    return _GRACE


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _kill_group(pid: int) -> None:
    """A worker leads a session of its own; its loader processes go with it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _quieten() -> None:
    """Torch's agent reports every worker that leaves as a failure; this launcher says what happened, once."""
    for name in (
        "agent.server.api",
        "agent.server.local_elastic_agent",
        "multiprocessing.api",
        "multiprocessing.errors",
    ):
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
