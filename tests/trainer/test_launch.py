"""How a node ends: exit code and termination message for everything that can happen to its processes."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from darkroom_api.report import TIME_BUCKETS, Reason, TerminationMessage
from darkroom_trainer import __main__, launch
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.rendezvous import Rendezvous
from darkroom_trainer.report import Facts
from darkroom_trainer.verdict import judge, oom_kills
from darkroom_trainer.watchdog import Stall
from tests.trainer.processes import free_port, pair_environ, start_node, toy_config

# --- Real launchers with real workers ---


@pytest.mark.parametrize(
    ("fault", "code", "reason", "error"),
    [
        pytest.param({"do": "raise"}, 70, "SoftwareError", "KeyError: 'no such thing", id="a worker raises"),
        pytest.param({"do": "exit", "code": 65}, 65, "DataError", "exit code 65", id="a worker exits 65"),
        pytest.param({"do": "kill", "workers": 1}, 137, "Killed", "SIGKILL", id="a worker is killed"),
    ],
)
def test_the_failing_worker_decides(tmp_path, fault, code, reason, error):
    """Rank 1 fails at its second step; rank 0 loses its peer, which is no cause. No loader process stays behind."""
    config = toy_config(tmp_path, faults={"at_step": 2, "rank": 1, **fault}, workers=fault.pop("workers", 0))
    node = start_node(config, tmp_path, processes=2).wait()
    message = node.message
    assert (node.code, message.exit_code, message.reason) == (code, code, reason), node.output
    assert error in message.error
    assert message.rank == 1
    assert message.steps == 50
    assert eventually(lambda: not processes_with(str(node.log)))
    assert set(message.time) == set(TIME_BUCKETS)


def processes_with(text: str) -> list[str]:
    """Command lines of processes whose environment has `text`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if text.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
    return found


def eventually(holds: Callable[[], bool], timeout: float = 60) -> bool:
    deadline = time.monotonic() + timeout
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_configuration_errors_name_the_field_and_start_nothing(tmp_path):
    wire = toy_config(tmp_path).to_wire()
    wire["vision"]["batchSize"] = "many"
    wire["vision"]["optimiser"] = {}
    node = start_node(json.dumps(wire), tmp_path).wait()
    assert (node.code, node.message.reason) == (78, "ConfigError")
    assert "vision.batchSize: Input should be a valid integer" in node.message.error
    assert "vision.optimiser: no such field" in node.message.error
    assert "darkroom: ConfigError (78)" in node.output


def test_sigterm_while_waiting_for_another_node_is_answered_at_once(tmp_path):
    """Torch blocks for a minute in its question to a node 0 that takes the call and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(120)
        node = start_node(toy_config(tmp_path), tmp_path, **pair_environ(1, mute.getsockname()[1]))
        call, _ = mute.accept()
        node.terminate()
        node.wait(50)
        call.close()
    assert (node.code, node.message.reason) == (75, "AskedToLeave")
    assert node.ended_after < 30


def test_sigterm_to_one_of_two_nodes_both_leave_at_the_same_step(tmp_path):
    port, config = free_port(), toy_config(tmp_path, faults={"step_sleep": 0.05}, schedule={"epochs": 200})
    nodes = [start_node(config, tmp_path, **pair_environ(rank, port)) for rank in (0, 1)]
    assert eventually((tmp_path / "run/metrics.jsonl").exists, 120)
    nodes[1].terminate()
    messages = [node.wait().message for node in nodes]
    assert [node.code for node in nodes] == [75, 75], [node.output for node in nodes]
    assert nodes[1].ended_after < 25
    assert {message.reason for message in messages} == {"AskedToLeave"}
    steps = {(message.step, message.checkpoint_step) for message in messages}
    assert len(steps) == 1
    step, saved = steps.pop()
    assert step == saved > 0
    for message in messages:
        assert (tmp_path / "run" / message.checkpoint.path / "manifest.json").exists()
        assert message.error is None


def test_two_nodes_learn_and_account_for_their_time(tmp_path):
    """Static rendezvous; above 97 % on digits that were never seen; buckets sum to the wall clock."""
    port = free_port()
    config = toy_config(
        tmp_path, batchSize=64, schedule={"epochs": 24}, optimizer={"learningRate": "0.1"}, ema={"decay": "0.9"}
    )
    nodes, walls = [], []
    for rank in (0, 1):
        walls.append(-time.time())
        nodes.append(start_node(config, tmp_path, **pair_environ(rank, port, backend="static")))
    messages = [node.wait().message for node in nodes]
    walls = [wall + node.log.stat().st_mtime for wall, node in zip(walls, nodes, strict=True)]
    assert [node.code for node in nodes] == [0, 0], [node.output for node in nodes]
    for message, wall in zip(messages, walls, strict=True):
        metrics = {metric.name: float(metric.value) for metric in message.metrics}
        assert message.metrics[0].name == "test/top1"
        assert metrics["test/top1"] > 0.94
        assert metrics["test/count"] == 297
        assert sum(message.time.values()) == pytest.approx(wall, rel=0.01, abs=1)  # abs: the fork that starts it
    assert messages[0].model == messages[1].model


def test_the_environment_is_enough(tmp_path):
    """No file: DARKROOM_CONFIG. And a message that cannot be written does not change how the run ends."""
    wire = toy_config(tmp_path, faults={"samples": 48}, schedule={"epochs": 1}).to_wire()
    wire["vision"]["batchSize"] = 0
    environ = {"DARKROOM_CONFIG": json.dumps(wire), "DARKROOM_TERMINATION_LOG": str(tmp_path / "no/such/folder/log")}
    old = {name: os.environ.get(name) for name in environ}
    os.environ.update(environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert launch.main(None) == 78
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in old.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# --- Configuration ---


def test_read_config_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="name a file, or set DARKROOM_CONFIG"):
        launch.read_config(None, {})
    with pytest.raises(ConfigError, match=r"no.json cannot be read: No such file"):
        launch.read_config(tmp_path / "no.json", {})
    with pytest.raises(ConfigError, match="DARKROOM_CONFIG: Invalid JSON"):
        launch.read_config(None, {"DARKROOM_CONFIG": "{"})
    wire = toy_config(tmp_path).to_wire()
    wire["vision"] |= {"model": {"architecture": "resnet-18"}, "batch_size": 3, "optimizer": {"learningRate": 0.1}}
    with pytest.raises(ConfigError) as error:
        launch.read_config(None, {"DARKROOM_CONFIG": json.dumps(wire)})
    assert "vision.model.architecture: not an architecture of torchvision; there are resnet18, " in str(error.value)
    assert "vision.batch_size: no such field" in str(error.value)
    assert 'vision.optimizer.learningRate: a number in quotes is expected, as "0.1"' in str(error.value)
    wire = toy_config(tmp_path).to_wire()
    wire["vision"]["microBatchSize"] = 64
    with pytest.raises(ConfigError, match=r"vision: microBatchSize must not be greater than batchSize"):
        launch.read_config(None, {"DARKROOM_CONFIG": json.dumps(wire)})


def test_the_command_line_explains_itself(capsys):
    with pytest.raises(SystemExit) as exit_:
        __main__.main(["train", "--help"])
    assert exit_.value.code == 0
    assert "DARKROOM_CONFIG" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        __main__.main([])


# --- Rendezvous ---


def test_without_environment_one_process_on_this_machine():
    alone = Rendezvous.read({})
    assert (alone.min_nodes, alone.max_nodes, alone.processes, alone.node_rank) == (1, 1, 1, 0)
    assert (alone.backend, alone.elastic) == ("c10d", False)
    assert alone.endpoint.startswith("127.0.0.1:")
    assert alone.configs()["is_host"] is True


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param(
            {"PET_RDZV_ENDPOINT": "node-0:29400", "PET_LOCAL_ADDR": "10.0.0.7", "PET_RDZV_TIMEOUT": "90"},
            (
                "c10d",
                "node-0:29400",
                "10.0.0.7",
                {
                    "is_host": False,
                    "timeout": 90,
                    "join_timeout": 90,
                    "read_timeout": 60,
                    "keep_alive_max_attempt": 10**6,
                },
            ),
            id="c10d",
        ),
        pytest.param(
            {"PET_MASTER_ADDR": "node-0", "DARKROOM_POD_IP": "10.0.0.8"},
            (
                "c10d",
                "node-0:29400",
                "10.0.0.8",
                {
                    "is_host": False,
                    "timeout": 600,
                    "join_timeout": 600,
                    "read_timeout": 60,
                    "keep_alive_max_attempt": 10**6,
                },
            ),
            id="c10d by the master's address",
        ),
        pytest.param(
            {"PET_RDZV_BACKEND": "static", "PET_MASTER_ADDR": "node-0", "PET_MASTER_PORT": "1234"},
            ("static", "node-0:1234", None, {"rank": 1, "timeout": 600}),
            id="static",
        ),
    ],
)
def test_rendezvous(environ, expected):
    told = Rendezvous.read({"PET_NNODES": "2", "PET_NODE_RANK": "1", **environ})
    assert (told.backend, told.endpoint, told.local_addr, told.configs()) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PET_NNODES": "many"}, "PET_NNODES is 'many'"),
        ({"PET_NNODES": "3:2", "PET_MASTER_ADDR": "x"}, "PET_NNODES is '3:2'"),
        ({"PET_NNODES": "2:", "PET_MASTER_ADDR": "x"}, "PET_NNODES is '2:'"),
        ({"PET_NNODES": "2:3", "PET_MASTER_ADDR": "x", "PET_RDZV_BACKEND": "static"}, "static cannot do"),
        ({"PET_NNODES": "2", "PET_NODE_RANK": "2", "PET_MASTER_ADDR": "x"}, "PET_NODE_RANK is 2, but PET_NNODES is 2"),
        ({"PET_NNODES": "2"}, "PET_RDZV_ENDPOINT or PET_MASTER_ADDR"),
        ({"PET_NNODES": "2", "PET_RDZV_BACKEND": "etcd", "PET_RDZV_ENDPOINT": "x"}, "PET_RDZV_BACKEND is 'etcd'"),
        ({"PET_NPROC_PER_NODE": "0"}, "PET_NPROC_PER_NODE is '0'"),
    ],
)
def test_rendezvous_errors_name_the_variable(environ, message):
    with pytest.raises(ConfigError, match=message):
        Rendezvous.read(environ)


# --- Verdict ---


def worker(rank: int, reason: str, code: int, *, at: float = 0, error: str | None = None, ended: bool = True) -> Facts:
    message = TerminationMessage(reason=Reason(reason), exit_code=code, error=error, step=7)
    return Facts(rank=rank, pid=100 + rank, message=message, ended=ended, at=at)


DONE = [worker(0, "Completed", 0), worker(1, "Completed", 0)]
LEFT = [worker(0, "AskedToLeave", 75), worker(1, "AskedToLeave", 75)]
LOST = worker(0, "PeerLost", 70, at=1, error="gloo")
HUNG = Stall(rank=1, error="no progress for 9 s", stacks="rank 1:\n  fetch.py:54 in fetch")
RUNNING = worker(1, "Killed", 137, ended=False)


@pytest.mark.parametrize(
    ("workers", "codes", "facts", "expected"),
    [
        pytest.param(DONE, {}, {}, ("Completed", 0, None), id="done"),
        pytest.param(DONE, {}, {"asked": True}, ("Completed", 0, None), id="told to leave when it was over"),
        pytest.param([RUNNING], {1: -9}, {"stall": HUNG}, ("NoProgress", 70, 1), id="hung, and was ended for it"),
        pytest.param(
            [RUNNING], {1: -9}, {"stall": HUNG, "asked": True}, ("AskedToLeave", 75, None), id="hung, and did not leave"
        ),
        pytest.param(
            [replace(LOST, at=9), RUNNING],
            {1: -9},
            {"stall": HUNG},
            ("NoProgress", 70, 1),
            id="a peer of one that hung",
        ),
        pytest.param(LEFT, {0: 75, 1: 75}, {}, ("AskedToLeave", 75, None), id="another node was told to leave"),
        pytest.param(
            [LOST], {}, {"asked": True}, ("AskedToLeave", 75, None), id="told to leave when it had lost a peer"
        ),
        pytest.param([], {}, {"over": True}, ("Completed", 0, None), id="came when everything was over"),
        pytest.param([], {}, {"asked": True}, ("AskedToLeave", 75, None), id="told to leave before there was anybody"),
        pytest.param([RUNNING], {1: -9}, {"asked": True}, ("AskedToLeave", 75, None), id="too slow to leave"),
        pytest.param(
            [LOST, worker(1, "DataError", 65, at=2, error="x.png")],
            {0: 70, 1: 65},
            {},
            ("DataError", 65, 1),
            id="a lost peer is a consequence, even if it is noticed first",
        ),
        pytest.param(
            [worker(0, "SoftwareError", 70, at=5), worker(1, "ConfigError", 78, at=3)],
            {0: 70, 1: 78},
            {},
            ("ConfigError", 78, 1),
            id="the first failure is the cause",
        ),
        pytest.param([LOST, RUNNING], {0: 70, 1: -9}, {}, ("Killed", 137, 1), id="killed"),
        pytest.param(
            [LOST, RUNNING], {0: 70, 1: -9}, {"oom_killed": True}, ("OutOfMemory", 137, 1), id="out of memory"
        ),
        pytest.param([LOST, RUNNING], {0: 70, 1: -15}, {}, ("PeerLost", 70, 0), id="stopped by its own launcher"),
        pytest.param([LOST, RUNNING], {0: 70, 1: -11}, {}, ("SoftwareError", 70, 1), id="crashed"),
        pytest.param(
            [RUNNING], {0: -9, 1: -6}, {}, ("SoftwareError", 70, 1), id="crashed, the other hung and was killed"
        ),
        pytest.param([replace(RUNNING, nccl=True)], {1: -6}, {}, ("PeerLost", 70, 1), id="NCCL's watchdog"),
        pytest.param([RUNNING], {1: -40}, {}, ("SoftwareError", 70, 1), id="a signal without a name"),
        pytest.param([LOST, RUNNING], {0: 70, 1: 3}, {}, ("SoftwareError", 70, 1), id="an exit code of its own"),
        pytest.param([LOST, RUNNING], {0: 70, 1: 78}, {}, ("ConfigError", 78, 1), id="a known one, without a word"),
        pytest.param(
            [
                worker(
                    0, "SoftwareError", 70, error="RuntimeError: DataLoader worker (pid 9) is killed by signal: Killed."
                )
            ],
            {0: 70},
            {"oom_killed": True},
            ("OutOfMemory", 137, 0),
            id="the kernel killed a loader process",
        ),
        pytest.param(
            [worker(0, "SoftwareError", 70, error="KeyError: 'x'")],
            {0: 70},
            {"oom_killed": True},
            ("SoftwareError", 70, 0),
            id="an OOM elsewhere does not explain a KeyError",
        ),
        pytest.param(
            [],
            {},
            {"launcher_error": "RendezvousTimeoutError: late"},
            ("PeerLost", 70, None),
            id="the nodes did not meet",
        ),
        pytest.param([], {}, {"launcher_error": "OSError: x"}, ("SoftwareError", 70, None), id="the launcher broke"),
    ],
)
def test_judge(workers, codes, facts, expected):
    message = judge(workers, codes, **{"asked": False, "oom_killed": False, **facts})
    assert (message.reason, message.exit_code, message.rank) == expected
    assert message.step == (7 if workers else 0)


@pytest.mark.parametrize("error", ["x" * 100_000, "\u20ac" * 5000, 'quote " and \\ ' * 500, "\udcff" * 2000])
def test_messages_fit_whatever_the_error(tmp_path, error):
    facts = worker(0, "SoftwareError", 70, error=error)
    facts.message.error = facts.message.log_tail = error
    facts.write(tmp_path)
    (read,) = Facts.read_all(tmp_path)
    message = judge([read], {0: 70}, asked=False, oom_killed=False)
    text = message.encode()
    assert len(text.encode()) < 4096
    assert json.loads(text)["reason"] == "SoftwareError"


def test_facts_of_a_worker_that_died_while_writing_are_passed_over(tmp_path):
    worker(1, "Completed", 0).write(tmp_path)
    (tmp_path / "worker-7.json").write_text('{"rank": 0, "pid"')
    (tmp_path / "worker-8.json").write_text("{}")
    assert [facts.rank for facts in Facts.read_all(tmp_path)] == [1]


@pytest.mark.parametrize(
    ("proc", "file", "content"),
    [
        pytest.param("0::/pod/main\n", "pod/main/memory.events", "low 0\noom 3\noom_kill 2\n", id="v2, own path"),
        pytest.param("0::/\n", "memory.events", "oom 3\noom_kill 2\n", id="v2, in a container"),
        pytest.param("4:memory:/kubepods/x\n", "memory/memory.oom_control", "under_oom 0\noom_kill 2\n", id="v1"),
    ],
)
def test_oom_kills(tmp_path, proc, file, content):
    (tmp_path / "proc").write_text(proc)
    path: Path = tmp_path / "cgroup" / file
    assert oom_kills(tmp_path / "cgroup", tmp_path / "proc") == 0
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert oom_kills(tmp_path / "cgroup", tmp_path / "proc") == 2
