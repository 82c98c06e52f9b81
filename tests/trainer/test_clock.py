"""The buckets sum to the wall clock, throughput ignores outliers."""

import os
import subprocess
import sys
import time

import pytest

from darkroom_api.report import TIME_BUCKETS
from darkroom_trainer.clock import Clock, Eta, Throughput, eta, now, process_start


class Hands:
    """A clock that is moved by hand."""

    def __init__(self, at: float = 100.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def test_every_second_is_in_one_bucket():
    hands = Hands()
    clock = Clock(90.0, now=hands)  # the process began 10 s before
    hands.at = 103
    with clock.spend("restore"):
        hands.at = 105
    clock.switch("compute")
    hands.at = 110
    with clock.spend("evaluation"):
        hands.at = 112
        with clock.spend("dataWait"):
            hands.at = 115
    hands.at = 116
    seconds = clock.seconds()
    assert seconds == dict.fromkeys(TIME_BUCKETS, 0.0) | {
        "startup": 13.0, "restore": 2.0, "compute": 6.0, "evaluation": 2.0, "dataWait": 3.0
    }  # fmt: skip
    assert sum(seconds.values()) == 116 - 90


def test_a_bucket_is_closed_by_an_error_too():
    hands = Hands()
    clock = Clock(100.0, bucket="compute", now=hands)
    with pytest.raises(ZeroDivisionError), clock.spend("checkpoint"):
        hands.at = 101
        1 / 0  # noqa: B018
    hands.at = 103
    assert clock.seconds()["checkpoint"] == 1
    assert clock.seconds()["compute"] == 2


def test_what_was_measured_afterwards_is_moved_and_never_more_than_there_is():
    hands = Hands()
    clock = Clock(100.0, bucket="compute", now=hands)
    hands.at = 110
    clock.move("compute", "communication", 4)
    clock.move("compute", "communication", 100)
    clock.move("compute", "communication", -5)
    assert clock.seconds()["communication"] == 10
    assert sum(clock.seconds().values()) == 10


def test_switching_at_a_time_that_has_passed():
    hands = Hands(110)
    clock = Clock(100.0, now=hands)
    clock.switch("rendezvous", at=104)
    clock.switch("startup", at=107)
    assert clock.seconds()["rendezvous"] == 3
    assert clock.seconds()["startup"] == 7


def test_process_start_is_the_kernels():
    began = now()
    code = "import time; time.sleep(0.3); from darkroom_trainer.clock import process_start; print(process_start())"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    started = float(told.stdout)
    assert began - 0.02 <= started < now() - 0.28


@pytest.mark.parametrize("content", ["", "1 (x) S 1", "1 (a ) b) S " + "0 " * 40])
def test_where_the_kernel_does_not_say_the_import_counts(tmp_path, content):
    (tmp_path / "stat").write_text(content)
    imported = process_start(tmp_path / "none")
    assert process_start() <= imported < now()
    assert process_start(tmp_path / "stat") == imported


def test_throughput_is_a_median_without_the_first_window():
    throughput = Throughput()
    assert throughput.images_per_second is None
    throughput.add(10, 10)  # kernel selection
    assert throughput.images_per_second == 1
    for seconds in (1, 1, 20, 1, 1):  # one neighbour
        throughput.add(100, seconds)
    assert throughput.images_per_second == 100
    throughput.add(100, 0)
    throughput.add(0, 1)
    assert throughput.images_per_second == 100


def test_eta_with_a_range_once_there_are_windows_enough():
    throughput = Throughput()
    assert eta(1000, throughput, 6) is None
    throughput.add(50, 1)  # kernel selection
    throughput.add(100, 1)
    assert eta(1000, throughput, 6) == Eta(16)
    for seconds in (1, 1, 2, 1, 1, 2, 1, 1, 0.5, 0.5):
        throughput.add(100, seconds)
    assert eta(1000, throughput, 6) == Eta(16, low=11, high=26)


def test_clock_costs_nothing_that_matters():
    clock, began = Clock(now()), time.perf_counter()
    for _ in range(1000):
        with clock.spend("dataWait"):
            pass
    assert time.perf_counter() - began < 0.5
