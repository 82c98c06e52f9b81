"""Ranks that hang: who is found, when, and what they say of where they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from darkroom_api.report import Reason
from darkroom_trainer.report import Facts, running
from darkroom_trainer.watchdog import Heart, Stacks, Watchdog, collect, seconds_of, short
from tests.trainer.processes import ROOT, Node, start_node, toy_config
from tests.trainer.test_launch import eventually, processes_with

# --- Real processes that really hang ---

LIMIT = "6"


def ended_for_no_progress(node: Node) -> str:
    """The stacks in the message of a node that its own watchdog ended."""
    message = node.wait().message
    assert (node.code, message.reason) == (70, Reason.NO_PROGRESS), node.output
    assert re.match(r"no progress for \d+ s: last seen in ", message.error)
    assert eventually(lambda: not processes_with(str(node.log)))
    return message.log_tail


def test_a_rank_that_waits_in_gloo_and_one_that_waits_for_it(tmp_path):
    """Both are in C++ and run no Python; both stacks are in the message, and every thread of both in the log."""
    config = toy_config(tmp_path, faults={"do": "receive", "at_step": 3, "rank": 1})
    node = start_node(config, tmp_path, processes=2, DARKROOM_STALL_SECONDS=LIMIT)
    stacks = ended_for_no_progress(node)
    first, second = stacks.split("rank 1:")
    assert "rank 0:" in first
    assert "in all_reduce" in first or "in _engine_run_backward" in first, stacks
    assert "in recv" in second
    assert "toy_task.py" in second
    assert "--- rank 0 (pid" in node.output
    assert "--- rank 1 (pid" in node.output


def test_a_loader_process_that_reads_a_file_without_end(tmp_path):
    fifo = tmp_path / "image.png"
    os.mkfifo(fifo)
    config = toy_config(tmp_path, faults={"stuck_at": 700, "fifo": str(fifo)}, workers=1)
    node = start_node(config, tmp_path, processes=2, DARKROOM_STALL_SECONDS=LIMIT)
    stacks = ended_for_no_progress(node)
    assert "rank 0:" in stacks
    assert "rank 1:" in stacks
    loader = re.search(r"rank [01], loader process \d+:\n((?:  .*\n?)*)", stacks)
    assert loader, stacks
    assert "in read_bytes" in loader[1]
    assert "in __getitem__" in loader[1]


def test_slow_is_not_stuck(tmp_path):
    """Twice the limit before the first step, and again over an evaluation, batch by batch."""
    faults = {"slow_start": 4, "sleep": 0.005, "samples": 96}
    config = toy_config(tmp_path, faults=faults, schedule={"epochs": 1})
    node = start_node(config, tmp_path, DARKROOM_STALL_SECONDS="2").wait()
    assert node.code == 0, node.output


# --- The watchdog ---


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def me(rank: int = 0) -> Facts:
    return Facts(rank=rank, pid=os.getpid(), message=running())


def looks(watchdog: Watchdog, clock: Clock, seconds: float, *workers: Facts):
    """What it finds, looking once a second."""
    found = None
    for _ in range(int(seconds)):
        clock.now += 1
        found = watchdog.silent(workers)
    return found


def test_silence_counts_from_the_last_sign_of_life(tmp_path, clock):
    watchdog, heart = Watchdog(tmp_path, 10, setup=100, clock=clock), Heart(tmp_path)
    heart.alive()
    assert looks(watchdog, clock, 9, me()) is None
    heart.beat("evaluation")
    assert looks(watchdog, clock, 10, me()) is None
    found = looks(watchdog, clock, 1, me())
    assert (found.seconds, found.doing, found.worker.rank) == (10, "evaluation", 0)


def test_until_the_first_step_it_has_more_time(tmp_path, clock):
    """Even where it does not say anything yet."""
    watchdog = Watchdog(tmp_path, 10, setup=100, clock=clock)
    assert looks(watchdog, clock, 50, me()) is None
    Heart(tmp_path).beat("compile")
    assert looks(watchdog, clock, 100, me()) is None
    assert looks(watchdog, clock, 1, me()).doing == "compile"


def test_a_limit_longer_than_the_set_up_holds_for_it_too(tmp_path, clock):
    assert looks(Watchdog(tmp_path, 200, setup=100, clock=clock), clock, 150, me()) is None


def test_a_pod_that_was_frozen_was_not_silent(tmp_path, clock):
    watchdog, heart = Watchdog(tmp_path, 10, setup=10, clock=clock), Heart(tmp_path)
    heart.alive()
    looks(watchdog, clock, 2, me())
    clock.now += 3600
    assert watchdog.silent([me()]) is None


def test_those_that_have_ended_are_not_silent(tmp_path, clock):
    gone, ended = Facts(rank=0, pid=2**22 - 1, message=running()), me()
    ended.ended = True
    assert looks(Watchdog(tmp_path, 5, setup=5, clock=clock), clock, 20, gone, ended) is None


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [({}, None), ({"DARKROOM_STALL_SECONDS": "600"}, 600), ({"DARKROOM_STALL_SECONDS": "x"}, None)],
)
def test_nobody_watches_where_nobody_asked(environ, seconds):
    assert seconds_of(environ) == seconds


# --- Stacks ---

DUMP = """Thread 0x00007f00 (most recent call first):
  File "/usr/lib/threading.py", line 331 in wait

Current thread 0x00007f01 (most recent call first):
  File "/site-packages/torch/distributed/distributed_c10d.py", line 2501 in recv
  File "/app/train.py", line 9 in <module>
"""
IDLE = """Current thread 0x1 (most recent call first):
  File "/usr/lib/multiprocessing/queues.py", line 113 in get
  File "/site-packages/torch/utils/data/_utils/worker.py", line 303 in _worker_loop
"""


def test_the_main_thread_is_what_matters():
    stacks = [Stacks(0, 7, False, DUMP), Stacks(0, 8, True, IDLE), Stacks(1, 9, False, "no answer; state D\n")]
    expected = "rank 0:\n  distributed_c10d.py:2501 in recv\n  train.py:9 in <module>\nrank 1:\n  no answer; state D"
    assert short(stacks) == expected


@pytest.mark.parametrize("ranks", [1, 8, 64, 300])
def test_stacks_fit_into_the_message(ranks):
    deep = DUMP + "".join(f'  File "/a/{"x" * 40}.py", line {n} in f\n' for n in range(90))
    text = short([Stacks(rank, rank, False, deep) for rank in range(ranks)])
    assert len(text) <= 1000 + ranks
    assert "rank 0" in text or ranks == 300


def test_stacks_of_this_process_can_be_asked_for(tmp_path):
    """The same file and signal as in a worker, in a process of its own."""
    program = (
        "import sys, time; from pathlib import Path; from darkroom_trainer import watchdog\n"
        "watchdog.answer(Path(sys.argv[1])); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        stdout=subprocess.PIPE,
        env=os.environ | {"RANK": "3", "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image"},
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            (stacks,) = collect(Path(tmp_path), [Facts(rank=3, pid=process.pid, message=running())])
        finally:
            process.kill()
    assert (stacks.rank, stacks.loader) == (3, False)
    assert stacks.frames[0] == "<string>:2 in <module>"
