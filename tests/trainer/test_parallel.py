"""What the processes of a group tell each other."""

import pytest
import torch
import torch.distributed as dist

from darkroom_trainer import parallel
from darkroom_trainer.errors import ConfigError, PeerLostError, TrainerError
from darkroom_trainer.parallel import Group, Pulse, is_peer_loss
from tests.trainer import members
from tests.trainer.processes import together, toy_config
from tests.trainer.test_resume import differences


def test_rank_0_shares_what_it_has():
    assert together(2, members.share_member, None) == [42, 42]


def test_an_error_of_rank_0_is_raised_on_all_with_its_exit_code():
    own = together(2, members.share_member, ConfigError)
    assert [type(error) for error in own] == [ConfigError, ConfigError]
    foreign = together(2, members.share_member, OSError)
    assert type(foreign[0]) is OSError
    assert type(foreign[1]) is TrainerError
    assert str(foreign[1]) == "rank 0: OSError: rank 0 could not"


def test_a_peer_that_went_away_is_recognised():
    answers = together(2, members.peer_loss_told_member)
    assert answers[1] == "gone"
    lost, text = answers[0]
    assert lost, text


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (
            RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]"),
            True,
        ),
        (RuntimeError("Timed out waiting 600000ms for recv operation to complete"), True),
        (PeerLostError("x"), True),
        (dist.DistNetworkError("The client socket has failed to connect"), True),
        (dist.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (dist.DistBackendError("NCCL error: invalid usage"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("Connection pool is empty"), False),
        (ValueError("gloo/transport"), False),
    ],
)
def test_is_peer_loss(error, lost):
    assert is_peer_loss(error) is lost


# --- Pulse ---


class Hands:
    at = 0.0

    def __call__(self) -> float:
        return self.at


def test_beats_come_about_once_a_second(monkeypatch):
    hands = Hands()
    monkeypatch.setattr(parallel, "now", hands)
    pulse, beats = Pulse(Group()), []
    for step in range(400):
        hands.at += 0.02
        if pulse.tick():
            beats.append((step + 1, round(pulse.beat(torch.zeros(1), stop=False).seconds, 2)))
    assert beats[0] == (1, 0.02)  # a signal during the start is heard at the first step
    assert all(seconds <= 1.01 for _, seconds in beats)
    assert sum(seconds >= 0.9 for _, seconds in beats) >= 6


def test_slow_steps_beat_every_time(monkeypatch):
    hands = Hands()
    monkeypatch.setattr(parallel, "now", hands)
    pulse = Pulse(Group())
    for _ in range(5):
        hands.at += 3
        assert pulse.tick()
        pulse.beat(torch.zeros(1), stop=False)


def test_a_beat_carries_sums_and_zeroes_them():
    sums = torch.tensor([2.5, 3.0], dtype=torch.float64)
    beat = Pulse(Group()).beat(sums, stop=True)
    assert (beat.sums, beat.stop, beat.news) == ([2.5, 3.0], True, False)
    assert sums.tolist() == [0, 0]


# --- What DDP is told ---


@pytest.mark.parametrize(
    ("batches", "steady"),
    [
        pytest.param({"batchSize": 48}, True, id="a micro-batch for each"),
        pytest.param({"batchSize": 48, "microBatchSize": 12}, False, id="accumulation"),
        pytest.param({"batchSize": 48, "microBatchSize": 48}, False, id="one of them idle"),
        pytest.param({"batchSize": 48, "microBatchSize": 16}, False, id="uneven shares"),
    ],
)
def test_a_graph_is_static_only_if_each_process_has_one_micro_batch_per_step(tmp_path, batches, steady):
    assert together(2, members.steady_member, toy_config(tmp_path, **batches)) == [[steady], [steady]]


@pytest.mark.parametrize(("compress", "digits"), [("BF16", 8), ("FP16", 11)])
def test_compressed_gradients_are_the_same_on_all_and_near_the_exact_ones(tmp_path, compress, digits):
    faults = {"dropout": 0.0, "noise": 0.0}
    exact, _ = together(2, members.gradient_member, toy_config(tmp_path / "exact", faults=faults))
    config = toy_config(tmp_path / compress, faults=faults, parallelism={"compress": compress})
    one, other = together(2, members.gradient_member, config)
    assert max(differences(one, other).values()) == 0.0
    worst = max(difference for name, difference in differences(exact, one).items() if "num_batches" not in name)
    assert 0 < worst < 2.0**-digits
