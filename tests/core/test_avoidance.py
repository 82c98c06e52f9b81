"""Nodes on which a training fails again and again are avoided."""

import pytest

from darkroom_api.v1alpha1.training_job_status import Attempt
from darkroom_operator.core.training_job.avoidance import avoided_nodes
from tests.core.world import World

CRASH, OOM, KILLED = "SoftwareError", "OutOfMemory", "Killed"


def attempts(*ends: tuple[str, str | None]) -> list[Attempt]:
    """Attempts that ended for these reasons, with the node of the first failure."""
    moment = "2026-01-01T00:00:00Z"
    return [
        Attempt(number=n, job=f"flowers-{n}", uid=str(n), start_time=moment, result="Failed", reason=reason, node=node)
        for n, (reason, node) in enumerate(ends, start=1)
    ]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        pytest.param([], [], id="nothing yet"),
        pytest.param([(CRASH, "a")], [], id="once is chance"),
        pytest.param([(CRASH, "a"), (CRASH, "b")], [], id="once on each"),
        pytest.param([(CRASH, "a"), (CRASH, "a")], ["a"], id="twice on one"),
        pytest.param([(CRASH, "a"), (OOM, "b"), (KILLED, "a")], ["a"], id="whatever the failure was"),
        pytest.param([("Disrupted", None), ("Disrupted", None)], [], id="disruptions blame nobody"),
        pytest.param([("DataError", "a"), ("ConfigError", "a"), ("PeerLost", "a")], [], id="what no node causes"),
        pytest.param([(CRASH, None), (CRASH, None)], [], id="no node known"),
        pytest.param([(CRASH, "a")] * 2 + [(CRASH, "b")] * 3, ["b", "a"], id="the worst first"),
        pytest.param([(CRASH, "a")] * 2 + [(CRASH, "b")] * 2, ["b", "a"], id="the latest first"),
        pytest.param([(CRASH, node) for node in "abcdef"] * 2, ["f", "e", "d", "c", "b"], id="five at most"),
    ],
)
def test_avoided_nodes(ends, expected):
    assert avoided_nodes(attempts(*ends)) == expected


def test_the_next_attempt_keeps_away_and_says_so():
    world = World(restart={"maxRestarts": 9, "backoffSeconds": 0})
    for attempt in (1, 2):
        world.settle()
        assert "affinity" not in world.jobs[f"flowers-{attempt}"]["spec"]["template"]["spec"]
        world.run(f"flowers-{attempt}", 0, node="good")
        world.run(f"flowers-{attempt}", 1, node="bad")
        world.settle()
        world.end(f"flowers-{attempt}", 1, 70)
        world.leave(f"flowers-{attempt}")
    world.settle()
    assert [attempt.get("node") for attempt in world.status["attempts"]] == ["bad", "bad", None]
    assert world.status["avoidedNodes"] == ["bad"]
    affinity = world.jobs["flowers-3"]["spec"]["template"]["spec"]["affinity"]
    (term,) = affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["preference"] == {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["bad"]}]}
    (event,) = [event for event in world.events if "flowers-3" in event.note]
    assert event.note == "created Job flowers-3 for attempt 3, rather not on bad: failed there before"


def test_a_disruption_on_a_node_is_not_held_against_it():
    world = World(restart={"backoffSeconds": 0})
    for attempt in (1, 2):
        world.settle()
        world.run(f"flowers-{attempt}", node="spot")
        world.settle()
        world.disrupt(f"flowers-{attempt}", 0)
        world.leave(f"flowers-{attempt}")
    world.settle()
    assert "avoidedNodes" not in world.status
