"""Several training processes without launchers, and launchers as processes: the two ways in which tests train."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom_api.report import TerminationMessage
from darkroom_api.v1alpha1.vision import TrainerConfig

ROOT = Path(__file__).parents[2]
TASK = "tests.trainer.toy_task:make_task"


PRELOADED = ["torch", "torch._dynamo", "darkroom_trainer.train", "tests.trainer.toy_task"]
"""What the fork server imports once for all processes; torch's optimizers import dynamo."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def toy_config(
    folder: Path, *, faults: Mapping[str, Any] | None = None, every: int = 3600, **vision: Any
) -> TrainerConfig:
    """Digits, small batches; `faults` go to the task. The run's folder is `folder`/run."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data/toy.json").write_text(json.dumps(faults or {}))
    fields = {
        "data": {"claim": "images"},
        "model": {"architecture": "resnet18", "stem": "SmallImage"},
        "imageSize": 32,
        "batchSize": 48,
        "optimizer": {"learningRate": "0.05"},
        "schedule": {"epochs": 2, "warmupEpochs": "0.5"},
        **vision,
    }
    content = {
        "vision": fields,
        "dataDir": str(folder / "data"),
        "runDir": str(folder / "run"),
        "checkpoint": {"everySeconds": every, "keep": 2},
    }
    return TrainerConfig.model_validate(content, strict=False)


# --- Processes of one group, from a fork server that has imported torch already ---


def together(world: int, function: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[Any]:
    """`function(*arguments)` on `world` processes that can join a group; results by rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port, results = free_port(), context.SimpleQueue()
    children = [
        context.Process(target=_member, args=(rank, world, port, results, function, arguments)) for rank in range(world)
    ]
    for child in children:
        child.start()
    deadline = time.monotonic() + timeout
    found: dict[int, Any] = {}
    while len(found) < world and time.monotonic() < deadline:
        if not results.empty():
            rank, result = results.get()
            found[rank] = result
        elif all(child.exitcode is not None for child in children) and results.empty():
            break
        else:
            time.sleep(0.01)
    for child in children:
        child.join(10)
        if child.is_alive():
            child.kill()
    assert len(found) == world, f"of {world} processes only {sorted(found)} answered"
    return [found[rank] for rank in range(world)]


def _member(rank: int, world: int, port: int, results: Any, function: Callable[..., Any], arguments: Any) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), DARKROOM_CPU_LIMIT="1", CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    try:
        results.put((rank, function(*arguments)))
    except Exception as error:
        results.put((rank, error))
    os._exit(0)


# --- Launchers ---


@dataclass
class Node:
    """A launcher process and the file that kubelet would read."""

    process: subprocess.Popen[str]
    log: Path
    output: str = ""
    code: int | None = None
    ended_after: float = field(default=0.0)

    def wait(self, timeout: float = 150) -> "Node":
        began = time.monotonic()
        try:
            self.output += self.process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.output += self.process.communicate()[0]
            raise AssertionError(f"the launcher did not end: {self.output}") from None
        self.ended_after = time.monotonic() - began
        self.code = self.process.returncode
        return self

    def wait_for(self, text: str, timeout: float = 120) -> None:
        """Read the output until a line has `text`."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            line = self.process.stdout.readline()
            self.output += line
            if text in line or not line:
                assert text in line, "the launcher ended before"
                return
        raise AssertionError(f"no {text!r}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    @property
    def message(self) -> TerminationMessage:
        raw = self.log.read_bytes()
        assert len(raw) < 4096
        json.loads(raw)
        message = TerminationMessage.decode(raw.decode())
        assert message is not None
        return message


def start_node(
    config: TrainerConfig | str, folder: Path, *, processes: int = 1, task: str | None = TASK, **environ: str
) -> Node:
    """Start `darkroom_trainer train` as one node; `environ` adds PET_* for several."""
    path = folder / f"config-{os.urandom(4).hex()}.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config.to_wire()))
    log = folder / f"termination-{os.urandom(4).hex()}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PET_", "DARKROOM_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "darkroom_trainer", "train", str(path), *(["--task", task] if task else [])],
        cwd=ROOT,
        env={
            **inherited,
            "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image:{ROOT}",
            "PET_NPROC_PER_NODE": str(processes),
            "DARKROOM_TERMINATION_LOG": str(log),
            "DARKROOM_CPU_LIMIT": "1",
            "CUDA_VISIBLE_DEVICES": "",
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Node(process, log)


def pair_environ(rank: int, port: int, *, backend: str = "c10d") -> dict[str, str]:
    """PET_* of one of two nodes on this machine."""
    common = {"PET_NNODES": "2", "PET_NODE_RANK": str(rank), "PET_RDZV_BACKEND": backend, "PET_RDZV_ID": "test"}
    if backend == "static":
        return common | {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    return common | {"PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "DARKROOM_POD_IP": "127.0.0.1"}
