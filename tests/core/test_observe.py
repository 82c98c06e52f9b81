"""What is read from the raw objects of the API server."""

import pytest

from darkroom_operator.core.training_job.observe import is_managed_here, lagging_attempt
from tests.core.world import World


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, True, id="nobody said"),
        pytest.param(None, True, id="no spec at all: an error of ours to tell"),
        pytest.param({"managedBy": "darkroom.dev/operator"}, True, id="this operator"),
        pytest.param({"managedBy": "kueue.x-k8s.io/multikueue"}, False, id="another controller"),
        pytest.param({"managedBy": "darkroom.dev/operator2"}, False, id="nearly this operator"),
    ],
)
def test_whose_job_it_is(spec, expected):
    assert is_managed_here({"spec": spec}) == expected


@pytest.fixture
def crashed() -> World:
    """Both pods of an attempt have ended, and its Job says so; the status does not know yet."""
    world = World()
    world.settle()
    world.run("flowers-1")
    world.settle()
    world.end("flowers-1", 0, 70)
    world.leave("flowers-1", 143)
    return world


def lagging(world: World) -> int | None:
    facts = world.facts()
    return lagging_attempt(facts.body, facts.children)


def test_an_attempt_is_judged_by_all_its_pods(crashed):
    assert lagging(crashed) is None


def test_pods_that_seem_to_run_when_their_job_has_ended_are_asked_for(crashed):
    crashed.pods["flowers-1-0"]["status"] = {"phase": "Running"}
    assert lagging(crashed) == 1


def test_so_are_those_that_were_never_seen(crashed):
    del crashed.pods["flowers-1-0"]
    assert lagging(crashed) == 1


def test_once_judged_nobody_asks_any_more(crashed):
    crashed.settle()
    crashed.pods.clear()
    assert lagging(crashed) is None


def test_nor_while_the_job_runs():
    world = World()
    world.settle()
    assert lagging(world) is None
