"""A group of two or three nodes that come and go: the training goes on, and ends as if nobody had."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

from darkroom_api.report import Reason
from tests.trainer.processes import Node, free_port, start_node, toy_config
from tests.trainer.test_launch import eventually

GROUP = {"batchSize": 48, "microBatchSize": 16, "imageSize": 32}


def member(folder: Path, config, rank: int, port: int) -> Node:
    """A node of an elastic group on this machine."""
    environ = {"PET_NNODES": "2:3", "PET_NODE_RANK": str(rank), "PET_RDZV_BACKEND": "c10d", "PET_RDZV_ID": "test"}
    environ |= {"PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "DARKROOM_POD_IP": "127.0.0.1"}
    return start_node(config, folder, **environ)


def send(node: Node, number: signal.Signals) -> None:
    """To every process of the node, as a node without power takes them all."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(node.log).encode() in (folder / "environ").read_bytes():
                os.kill(int(folder.name), number)


def worlds(folder: Path) -> list[int]:
    """Processes of the group over time, as the run's own record has them."""
    path = folder / "run/metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["world"] for line in lines if "world" in line]


def test_nodes_fall_silent_come_back_and_are_told_to_leave(tmp_path):
    """Silent, as without power: its peers hear of it by its keep-alives. Told: it leaves after a checkpoint of all, alone."""
    port = free_port()
    config = toy_config(tmp_path, faults={"step_sleep": 0.05}, every=1, schedule={"epochs": 4000}, **GROUP)
    nodes = [member(tmp_path, config, rank, port) for rank in range(3)]
    try:
        assert eventually(lambda: worlds(tmp_path)[-1:] == [3], 120)
        assert eventually(lambda: any((tmp_path / "run/checkpoints").glob("step-*")))
        send(nodes[2], signal.SIGSTOP)
        assert eventually(lambda: worlds(tmp_path)[-1:] == [2], 120)
        nodes.append(member(tmp_path, config, 2, port))
        assert eventually(lambda: worlds(tmp_path)[-1:] == [3], 120)
        nodes[3].terminate()
        assert nodes[3].wait().code == 75, nodes[3].output
        assert nodes[3].message.checkpoint_step == nodes[3].message.step > 0
        assert eventually(lambda: worlds(tmp_path)[-1:] == [2], 120)
    finally:
        send(nodes[2], signal.SIGKILL)
        nodes[2].process.communicate()
        for node in nodes[:2]:
            node.terminate()
    for node in nodes[:2]:
        assert node.wait().code == 75, node.output
        message = node.message
        assert (message.reason, message.checkpoint_step) == (Reason.ASKED_TO_LEAVE, message.step)
        assert message.resumed_step
        assert message.time["rendezvous"] > 5  # of both rounds: what was spent before a change counts on


def test_a_crash_of_its_own_ends_the_node_and_not_the_wait_for_it(tmp_path):
    """Workers are started again only when the group has changed."""
    port = free_port()
    config = toy_config(tmp_path, faults={"do": "raise", "at_step": 3, "rank": 1}, every=1, **GROUP)
    nodes = [member(tmp_path, config, rank, port) for rank in range(2)]
    assert eventually(lambda: any(node.process.poll() is not None for node in nodes), 120)
    crashed = next(node for node in nodes if node.process.poll() is not None)
    other = next(node for node in nodes if node is not crashed)
    assert (crashed.wait().code, crashed.message.reason) == (70, Reason.SOFTWARE_ERROR)
    assert other.process.poll() is None
    other.terminate()
    assert other.wait().code == 75
