"""What a job's status says about other numbers of nodes: from its own steps, from an earlier job's, or nothing."""

import pytest

from darkroom_api.step_times import StepTimes
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job.forecast import measured_by, work_of
from darkroom_operator.core.types import Precedent
from tests.core.test_plan import running
from tests.core.world import VISION, World, message

MEASURED = StepTimes(
    nodes=2, processes=2, batch=64, steps_per_epoch="100", compute="1", low="1", high="1.1", gradient_bytes=10**6
)
EPOCHS = {"vision": VISION | {"schedule": {"epochs": 36}}}
"""3,600 steps: a second a step is an hour, for 3.60 USD a node."""


def forecasts(status: dict) -> dict[int, str]:
    return {entry["nodes"]: entry["duration"] for entry in status["forecast"]["byNodes"]}


def test_own_steps_become_a_forecast_of_the_whole_training():
    world = running(**EPOCHS)
    assert "forecast" not in world.status
    world.report(step_times=MEASURED)
    world.settle()
    found = world.status["forecast"]
    assert found["basis"] == "steps measured on 2 nodes (2 processes); other numbers of nodes are extrapolated"
    assert [entry["nodes"] for entry in found["byNodes"]] == [1, 2, 4, 8]
    assert found["byNodes"][1] == {
        "nodes": 2,
        "seconds": 3600,
        "lowSeconds": 3600,
        "highSeconds": 3960,
        "duration": "60m (60m-66m)",
        "cost": "7.20 USD (7.20-7.92)",
    }
    assert world.status["stepTimes"]["compute"] == "1"


@pytest.mark.parametrize(
    ("measured", "profile", "nodes"),
    [
        pytest.param({}, {"max_nodes": 2}, [1, 2], id="the profile has no more nodes"),
        pytest.param({"batch": 4}, {}, [1, 2, 4], id="eight nodes would share four images"),
        pytest.param({"nodes": 3, "processes": 3}, {}, [1, 2, 3, 4, 8], id="measured on another number"),
    ],
)
def test_numbers_of_nodes(measured, profile, nodes):
    world = running(profiles={"default": Profile(image="trainer:1", **profile)}, **EPOCHS)
    world.report(step_times=MEASURED.model_copy(update=measured))
    world.settle()
    assert list(forecasts(world.status)) == nodes
    assert all("cost" not in entry for entry in world.status["forecast"]["byNodes"]), "the profile has no price"


def test_one_node_says_that_it_knows_no_network():
    world = running(**EPOCHS)
    world.report(step_times=MEASURED.model_copy(update={"nodes": 1, "processes": 1}))
    world.settle()
    assert "on 1 node (1 process)" in world.status["forecast"]["basis"]
    assert "1 to 100 Gbit/s, for none was used" in world.status["forecast"]["basis"]


def test_it_stays_between_two_attempts_and_at_the_end():
    world = running(**EPOCHS)
    world.report(step_times=MEASURED)
    world.settle()
    before = world.status["forecast"]
    for index in range(2):
        world.end("flowers-1", index, 0, message(step=3600, steps=3600) if index == 0 else "")
    world.settle()
    assert world.status["finished"] is True
    assert world.status["forecast"] == before


def test_without_live_reports_the_last_word_is_measured_with():
    world = running(**EPOCHS)
    world.end("flowers-1", 0, 0, message(step=3600, steps=3600, step_times=MEASURED))
    world.end("flowers-1", 1, 0)
    world.settle()
    assert forecasts(world.status)[2] == "60m (60m-66m)"


# --- Before the first step ---


def waiting(precedent: Precedent | None) -> World:
    """A job whose pods do not run yet."""
    world = World(**EPOCHS)
    world.precedent = precedent
    world.settle()
    return world


def test_an_earlier_job_of_the_same_work_is_the_first_basis():
    status = waiting(Precedent("before", MEASURED)).status
    assert status["forecast"]["basis"].startswith("no step yet; steps of before, measured on 2 nodes")
    assert forecasts(status)[2] == "60m (60m-66m)"


def test_it_is_made_once_and_gives_way_to_own_steps():
    world, slower = waiting(Precedent("before", MEASURED)), MEASURED.model_copy(update={"compute": "2"})
    world.precedent = Precedent("another", slower)
    world.run("flowers-1")
    world.settle()
    assert world.status["forecast"]["basis"].startswith("no step yet; steps of before,")
    world.report(step_times=slower)
    world.settle()
    assert world.status["forecast"]["basis"].startswith("steps measured on")


def test_no_precedent_no_forecast():
    assert "forecast" not in waiting(None).status


def body(namespace: str = "vision", **spec) -> dict:
    return {
        "metadata": {"name": "flowers", "namespace": namespace},
        "spec": {"profile": "default", "vision": VISION} | spec,
    }


@pytest.mark.parametrize(
    ("other", "same"),
    [
        pytest.param(body(), True, id="the same"),
        pytest.param(body(numNodes=8), True, id="on other nodes"),
        pytest.param(body(vision=VISION | {"schedule": {"epochs": 99}}), True, id="longer"),
        pytest.param(body(vision=VISION | {"optimizer": {"learningRate": "0.3"}}), True, id="at another rate"),
        pytest.param(body(vision=VISION | {"batchSize": 8}), False, id="another batch"),
        pytest.param(body(profile="a100"), False, id="another profile"),
        pytest.param(body(resourcesPerNode={"cpu": "8"}), False, id="more of a node"),
        pytest.param(body("other"), False, id="somebody else's"),
    ],
)
def test_work(other, same):
    assert (work_of(other) == work_of(body())) is same


def test_what_a_job_has_measured_is_read_from_its_status():
    told = body() | {"status": {"stepTimes": MEASURED.to_wire()}}
    assert measured_by(told).precedent == Precedent("flowers", MEASURED)
    assert measured_by(body()) is None
    assert measured_by(body() | {"status": {"stepTimes": {"compute": "of a newer version"}}}) is None


def test_a_lifetime_is_no_forecast():
    world = running(**EPOCHS)
    world.report(
        step_times=MEASURED.model_copy(update={"compute": "900000000", "low": "900000000", "high": "900000000"})
    )
    world.settle()
    assert "forecast" not in world.status
