"""stallSeconds: an attempt without progress is ended, by the trainer's own watchdog or by the operator, and says where."""

import pytest

from darkroom_api.report import Action, Reason
from darkroom_operator.core.training_job import live, objects
from tests.core.test_plan import running
from tests.core.world import World, message

CONTAINER = {"image": "mine:1"}
STACKS = "rank 1:\n  fetch.py:54 in fetch"


def reporting(**spec) -> World:
    """A container of one's own that has just reported its first step."""
    world = running(**({"vision": None, "container": CONTAINER, "numNodes": 1, "stallSeconds": 60} | spec))
    world.report(step=1)
    world.settle()
    return world


def stuck(world: World, seconds: int = 60) -> None:
    """It goes on reporting, but no new step."""
    for _ in range(seconds // 10):
        world.wait(10)
        world.report(step=1)
        world.settle()


# --- The operator, for containers that report ---


def test_a_container_that_reports_no_new_step_is_ended_and_restarted():
    world = reporting(restart={"backoffSeconds": 0})
    assert world.look().requeue_after == pytest.approx(60)
    stuck(world)
    assert world.condition("Ready") == ("False", "NoProgress")
    assert (world.status["state"], world.events[-1].reason, world.events[-1].type) == (
        "Stopping",
        "NoProgress",
        "Warning",
    )
    assert live.reply(world.body, 1, accepted=True).action == Action.YIELD
    world.wait(60)
    world.settle()
    world.end("flowers-1", 0, 137, "Thread 0x1 (most recent call first):\n  File x.py")
    world.settle()
    attempt = world.status["attempts"][0]
    assert (attempt["result"], attempt["reason"], world.status["restarts"]) == ("Failed", "NoProgress", 1)
    assert world.status["failure"]["message"] == "no new step was reported for 60 s (stallSeconds); the last was 1"
    assert world.status["failure"]["logTail"].startswith("Thread 0x1")
    assert "Job/flowers-2" in world.created
    assert "stepTime" not in world.status["progress"]


def test_silence_counts_too_once_it_has_reported():
    world = reporting()
    world.wait(60)
    world.settle()
    assert world.condition("Ready") == ("False", "NoProgress")


@pytest.mark.parametrize(
    "fields", [pytest.param({"step": 2}, id="a step"), pytest.param({"step": 1, "epoch": 1}, id="an epoch")]
)
def test_news_that_is_not_stored_yet_is_news(fields):
    """Within the ten seconds between two writes of the status."""
    world = reporting()
    world.wait(5)
    world.report(**fields)
    world.wait(58)
    world.look()
    assert world.condition("Ready")[1] == "Running"


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"stallSeconds": None}, id="nobody set a limit"),
        pytest.param({"vision": {"data": {"claim": "a"}, "model": {"architecture": "resnet18"}}, "container": None},
                     id="the built-in trainer watches itself"),
    ],
)  # fmt: skip
def test_who_is_left_alone(spec):
    world = reporting(**spec)
    world.wait(10**5)
    world.settle()
    assert world.status["state"] == "Running"


def test_a_container_that_never_reported_is_left_alone():
    world = running(vision=None, container=CONTAINER, stallSeconds=60)
    world.wait(10**5)
    world.settle()
    assert world.status["state"] == "Running"


def test_the_operators_own_absence_is_no_silence_of_the_container():
    world = reporting()
    world.wait(600)
    world.live, world.listening_since = None, world.now
    assert world.look().requeue_after == pytest.approx(60)
    world.wait(59)
    world.settle()
    assert world.status["state"] == "Running"
    world.wait(1)
    world.settle()
    assert world.condition("Ready") == ("False", "NoProgress")


def test_what_the_attempt_before_reported_says_nothing():
    world = reporting(restart={"backoffSeconds": 0})
    world.end("flowers-1", 0, 70)
    world.settle()
    world.run("flowers-2")
    world.wait(600)
    world.settle()
    assert world.status["state"] == "Running"


# --- The trainer's own watchdog ---


def hung(world: World, node: int = 1, stacks: str = STACKS) -> None:
    text = message(
        Reason.NO_PROGRESS, 70, rank=node, error="no progress for 600 s: last seen in dataWait", log_tail=stacks
    )
    world.end("flowers-1", node, 70, text)


def test_a_trainer_that_ended_itself_spends_a_restart_and_the_stacks_of_all_nodes_are_kept():
    world = running(restart={"backoffSeconds": 0})
    hung(world)
    world.wait(1)
    left = message(Reason.ASKED_TO_LEAVE, 75, log_tail="rank 0:\n  distributed_c10d.py:2501 in all_reduce")
    world.end("flowers-1", 0, 75, left)
    world.settle()
    failure = world.status["failure"]
    assert (failure["reason"], failure["rank"], failure["pod"]) == ("NoProgress", 1, "flowers-1-1")
    assert failure["message"] == "no progress for 600 s: last seen in dataWait"
    assert failure["logTail"] == (
        f"--- flowers-1-0\nrank 0:\n  distributed_c10d.py:2501 in all_reduce\n--- flowers-1-1\n{STACKS}"
    )
    assert world.status["restarts"] == 1
    assert "Job/flowers-2" in world.created


@pytest.mark.parametrize("nodes", [2, 7, 300])
def test_the_stacks_of_many_nodes_fit(nodes):
    world = running(numNodes=nodes, restart={"backoffSeconds": 0})
    for node in range(nodes):
        hung(world, node, "rank 0:\n" + "x" * 1000)
    world.settle()
    assert len(world.status["failure"]["logTail"]) <= 2048


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        pytest.param({"reasons": ["NoProgress"], "action": "Fail"}, "Failed", id="by reason"),
        pytest.param({"exitCodes": [70], "action": "Fail"}, "Failed", id="by exit code"),
    ],
)
def test_rules_may_say_otherwise(rule, state):
    world = running(numNodes=1, restart={"backoffSeconds": 0, "rules": [rule]})
    hung(world, 0)
    world.settle()
    assert (world.status["state"], world.condition("Failed")) == (state, ("True", "RestartRule"))


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        pytest.param({}, "600", id="the built-in trainer"),
        pytest.param({"stallSeconds": 90}, "90", id="as asked"),
        pytest.param({"vision": None, "container": CONTAINER}, None, id="a container, without being asked"),
        pytest.param({"vision": None, "container": CONTAINER, "stallSeconds": 90}, "90", id="a container, as asked"),
    ],
)
def test_what_the_pods_are_told(spec, seconds):
    world = running(**spec)
    (container,) = world.jobs["flowers-1"]["spec"]["template"]["spec"]["containers"]
    told = {item["name"]: item.get("value") for item in container["env"]}
    assert told.get(objects.names.ENV_STALL_SECONDS) == seconds
