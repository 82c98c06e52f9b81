"""A TrainingJob's life, decision by decision, in the model world."""

from datetime import timedelta

import pytest

from darkroom_api.report import Artifact, Best, Reason
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.types import Refusal
from tests.core.world import PROFILES, VISION, World, message


def running(**spec) -> World:
    """A job whose first attempt runs."""
    world = World(**spec)
    world.settle()
    world.run("flowers-1")
    world.settle()
    return world


def test_a_two_node_job_needs_one_job_one_service_and_few_patches():
    world = World()
    world.settle()
    assert world.created == ["Service/darkroom-flowers", "Job/flowers-1"]
    assert (world.status["state"], world.status["nodes"]) == ("Pending", "0/2")
    world.run("flowers-1", 0)
    world.settle()
    assert (world.status["state"], world.status["nodes"]) == ("Pending", "1/2")
    world.run("flowers-1", 1)
    world.settle()
    assert (world.status["state"], world.status["nodes"]) == ("Running", "2/2")
    assert world.condition("Ready") == ("True", "Running")
    world.wait(60)
    world.end("flowers-1", 1, 0)
    world.settle()
    best = Best(metric="val/top1", value="0.97", epoch=3)
    model = Artifact(path="model/model.safetensors", sha256="a" * 64)
    world.end("flowers-1", 0, 0, message(step=90, steps=90, best=best, model=model, time={"compute": 50.0}))
    world.settle()
    assert (world.status["state"], world.status["finished"]) == ("Complete", True)
    assert world.condition("Complete") == ("True", "Completed")
    assert world.condition("Ready")[0] == "True"
    assert world.status["progress"]["percent"] == 100
    assert world.status["best"]["value"] == "0.97"
    assert world.status["outputs"]["sha256"] == "a" * 64
    assert world.created == ["Service/darkroom-flowers", "Job/flowers-1"]
    assert len(world.patches) <= 8


def test_one_node_needs_no_service():
    world = World(numNodes=1)
    world.settle()
    assert world.created == ["Job/flowers-1"]


def test_a_plan_is_idempotent():
    world = running()
    before = len(world.patches)
    for _ in range(5):
        world.look()
    assert len(world.patches) == before


@pytest.mark.parametrize(
    ("exit_code", "text", "why"),
    [
        pytest.param(65, message(Reason.DATA_ERROR, 65, error="class 'x' is empty"), "DataError", id="bad data"),
        pytest.param(
            78, message(Reason.CONFIG_ERROR, 78, error="digest differs"), "ConfigError", id="bad configuration"
        ),
        pytest.param(
            79,
            message(Reason.FIDELITY_TOO_LOW, 79, error="AUC is 1"),
            "FidelityTooLow",
            id="synthetic images too far off",
        ),
        pytest.param(78, "", "ConfigError", id="a container that speaks no protocol"),
    ],
)
def test_no_restart_where_none_can_help(exit_code, text, why):
    world = running()
    world.end("flowers-1", 1, exit_code, text)
    world.leave("flowers-1")
    world.settle()
    assert (world.status["state"], world.condition("Failed")) == ("Failed", ("True", why))
    assert world.condition("Stalled")[0] == "True"
    assert world.status["failure"]["pod"] == "flowers-1-1"
    assert world.status["failure"]["node"] == "worker"
    assert world.created.count("Job/flowers-2") == 0


def test_a_crash_restarts_the_whole_gang_after_a_back_off_and_spends_a_restart():
    world = running(restart={"maxRestarts": 1, "backoffSeconds": 10})
    world.end("flowers-1", 1, 70, message(Reason.SOFTWARE_ERROR, 70, rank=1, error="ValueError: boom"))
    world.settle()
    assert world.status["state"] == "Stopping"  # node 0 has not left yet
    assert "node 1 in pod flowers-1-1 has failed (exit code 70)" in world.ready_message
    world.leave("flowers-1")
    world.settle()
    assert "Job/flowers-2" not in world.created
    assert world.look().requeue_after == pytest.approx(10)
    assert world.status["restarts"] == 1
    assert world.status["failure"]["message"] == "ValueError: boom"
    assert world.status["failure"]["rank"] == 1
    world.wait(10)
    world.settle()
    assert "Job/flowers-2" in world.created
    world.run("flowers-2")
    world.settle()
    world.end("flowers-2", 0, 70)
    world.leave("flowers-2")
    world.settle()
    assert world.condition("Failed") == ("True", "RestartsExhausted")
    assert world.status["restarts"] == 1


def test_out_of_memory_is_named():
    world = running(restart={"maxRestarts": 0})
    world.end("flowers-1", 0, 137, reason="OOMKilled")
    world.leave("flowers-1", exit_code=70)
    world.settle()
    assert world.status["failure"]["reason"] == "OutOfMemory"
    assert "OutOfMemory" in world.ready_message


def test_a_disruption_is_free_and_starts_again_at_once():
    world = running(restart={"maxRestarts": 0, "backoffSeconds": 60})
    world.disrupt("flowers-1", 1, "preempted by a queue")
    world.leave("flowers-1")
    world.settle()
    assert "Job/flowers-2" in world.created
    assert (world.status["restarts"], world.status["disruptions"]) == (0, 1)
    assert world.status["attempts"][0]["reason"] == "Disrupted"
    assert "preempted by a queue" in world.status["attempts"][0]["message"]


def test_disruptions_in_a_row_back_off():
    world = running()
    for attempt in (1, 2):
        world.run(f"flowers-{attempt}")
        world.settle()
        world.disrupt(f"flowers-{attempt}", 0)
        world.leave(f"flowers-{attempt}")
        world.settle()
    assert "Job/flowers-3" not in world.created
    assert world.look().requeue_after == pytest.approx(10)


def test_a_rank_that_left_after_a_checkpoint_is_free():
    world = running(restart={"maxRestarts": 0})
    world.end("flowers-1", 0, 75, message(Reason.ASKED_TO_LEAVE, 75, checkpoint_step=40, step=40, steps=90))
    world.leave("flowers-1")
    world.settle()
    assert world.status["attempts"][0]["result"] == "Disrupted"
    assert world.status["progress"]["step"] == 40
    assert "Job/flowers-2" in world.created


def test_the_cause_beats_the_rank_that_only_lost_its_peer():
    world = running(restart={"maxRestarts": 0})
    world.end("flowers-1", 0, 70, message(Reason.PEER_LOST, 70, rank=0, error="connection closed"))
    world.wait(1)
    world.end("flowers-1", 1, 70, message(Reason.SOFTWARE_ERROR, 70, rank=1, error="ZeroDivisionError"))
    world.settle()
    assert world.status["failure"]["rank"] == 1


def test_the_next_attempt_waits_for_every_pod_of_the_last():
    world = running(restart={"maxRestarts": 3, "backoffSeconds": 0})
    world.end("flowers-1", 1, 70)
    for _ in range(3):
        world.wait(600)
        world.settle()
    assert "Job/flowers-2" not in world.created
    world.leave("flowers-1")
    world.settle()
    assert "Job/flowers-2" in world.created


def test_suspended_before_the_start():
    world = World(suspend=True)
    world.settle()
    assert world.created == []
    assert world.condition("Suspended") == ("True", "Suspended")
    assert world.condition("Ready")[0] == "True"
    world.edit(suspend=False)
    world.settle()
    assert "Job/flowers-1" in world.created
    assert world.condition("Suspended")[0] == "False"


def test_suspend_while_running_and_resume():
    world = running()
    world.wait(30)
    world.edit(suspend=True)
    world.settle()
    assert world.condition("Suspended")[0] == "False"
    assert world.status["nodes"] == "2/2"
    world.leave("flowers-1")
    world.settle()
    assert world.condition("Suspended")[0] == "True"
    assert world.status["attempts"][0]["result"] == "Suspended"
    assert (world.status["restarts"], world.status["disruptions"]) == (0, 0)
    assert world.status["nodes"] == "0/2"
    world.wait(3600)
    world.edit(suspend=False)
    world.settle()
    assert "Job/flowers-2" in world.created
    assert float(world.status["time"]["total"]) == pytest.approx(30)


def test_the_deadline_counts_running_time_only():
    world = running(activeDeadlineSeconds=100)
    assert world.look().requeue_after == pytest.approx(100)
    world.wait(60)
    world.edit(suspend=True)
    world.settle()
    world.leave("flowers-1")
    world.settle()
    world.wait(3600)
    world.edit(suspend=False)
    world.settle()
    assert world.look().requeue_after == pytest.approx(40)
    world.wait(41)
    world.settle()
    assert "deletionTimestamp" in world.jobs["flowers-2"]["metadata"]
    world.leave("flowers-2")
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")


def test_an_attempt_that_the_deadline_ended_is_on_record_and_priced():
    world = running(numNodes=1, activeDeadlineSeconds=100)
    world.wait(100)
    world.settle()
    assert world.condition("Ready") == ("False", "DeadlineExceeded")
    world.wait(20)
    said = message(Reason.ASKED_TO_LEAVE, 75, step=40, steps=90, checkpoint_step=40, time={"compute": 110.0})
    world.pods["flowers-1-0"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:40Z"
    world.end("flowers-1", 0, 75, said)
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")
    (attempt,) = world.status["attempts"]
    assert (attempt["result"], attempt["reason"]) == ("Failed", "DeadlineExceeded")
    assert world.status["progress"]["step"] == 40
    assert (float(world.status["time"]["compute"]), world.status["cost"]) == (pytest.approx(110), "0.1200 USD")
    assert (world.status["restarts"], world.status["disruptions"]) == (0, 0)


def test_a_crash_just_before_the_deadline_keeps_its_cause():
    world = running(activeDeadlineSeconds=100)
    world.wait(99)
    world.end("flowers-1", 1, 70, message(Reason.SOFTWARE_ERROR, 70, error="ValueError: boom"))
    world.settle()
    world.wait(1)
    assert world.look().requeue_after is None  # waits for node 0, which the Job controller has told to leave
    world.leave("flowers-1")
    world.settle()
    assert world.status["attempts"][0]["reason"] == "SoftwareError"
    assert world.status["failure"]["message"] == "ValueError: boom"
    assert world.condition("Failed") == ("True", "DeadlineExceeded")


def test_a_deadline_that_passed_is_not_moved_any_more():
    world = running(activeDeadlineSeconds=100)
    world.wait(100)
    world.look()
    world.edit(activeDeadlineSeconds=1000)
    world.settle()
    world.leave("flowers-1")
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")


def test_the_deadline_may_be_moved():
    world = running(activeDeadlineSeconds=100)
    world.wait(60)
    world.edit(activeDeadlineSeconds=1000)
    world.settle()
    world.wait(60)
    world.settle()
    assert world.status["state"] == "Running"


def test_the_job_object_goes_after_its_ttl():
    world = running(numNodes=1, ttlSecondsAfterFinished=30)
    world.end("flowers-1", 0, 0)
    world.settle()
    assert world.look().requeue_after == pytest.approx(30)
    world.wait(31)
    world.look()
    assert world.gone


def test_terminal_is_final():
    world = running(numNodes=1)
    world.end("flowers-1", 0, 0)
    world.settle()
    world.jobs.clear()
    world.services.clear()
    world.edit(suspend=True)
    world.settle()
    assert world.created.count("Job/flowers-1") == 1
    assert world.status["state"] == "Complete"
    assert {c["observedGeneration"] for c in world.status["conditions"]} == {2}


def test_a_deleted_service_is_made_again():
    world = running()
    world.services.clear()
    world.settle()
    assert world.created.count("Service/darkroom-flowers") == 2


def test_a_deleted_job_of_a_running_attempt_costs_nothing_but_the_attempt():
    world = running(restart={"maxRestarts": 0})
    world._delete("Job", "flowers-1", world.jobs["flowers-1"]["metadata"]["uid"])
    world.settle()
    assert "Job/flowers-2" not in world.created  # its pods still save
    world.leave("flowers-1", exit_code=0)
    world.settle()
    assert world.status["attempts"][0]["reason"] == "JobDeleted"
    assert "Job/flowers-2" in world.created


@pytest.mark.parametrize(
    ("profiles", "spec", "reason", "words"),
    [
        pytest.param(
            PROFILES, {"profile": "big"}, "ProfileNotFound", ["spec.profile", "'big'", "default"], id="profile"
        ),
        pytest.param(
            {"default": Profile(image="x", max_nodes=1)}, {}, "ProfileLimitExceeded", ["spec.numNodes", "2"], id="limit"
        ),
        pytest.param(
            {"default": Profile(image="x", priority_class_name="low", priority_classes=["mid"])},
            {"scheduling": {"priorityClassName": "high"}},
            "PriorityClassNotAllowed",
            ["spec.scheduling.priorityClassName", "'high'", "allowed: low, mid"],
            id="priority",
        ),
        pytest.param(
            PROFILES,
            {"scheduling": {"priorityClassName": "system-node-critical"}},
            "PriorityClassNotAllowed",
            ["allowed: none"],
            id="priority, where the profile has none",
        ),
        pytest.param({"default": Profile()}, {}, "ProfileNotFound", ["image"], id="no trainer image"),
        pytest.param(
            PROFILES, {"numNodes": 0}, "InvalidSpec", ["spec.numNodes"], id="what the API server would refuse"
        ),
        pytest.param(
            PROFILES,
            {"vision": VISION | {"future": 1}},
            "InvalidSpec",
            ["spec.vision.future: no such field in this version"],
            id="a newer version's field",
        ),
    ],
)
def test_what_cannot_work_says_so_and_recovers(profiles, spec, reason, words):
    world = World(profiles=dict(profiles), **spec)
    world.settle()
    assert world.condition("Stalled") == ("True", reason)
    assert all(word in world.ready_message for word in words)
    assert world.created == []
    world.profiles = {"default": PROFILES["default"], "big": PROFILES["default"]}
    world.body["spec"] = {"vision": VISION, "numNodes": 1}
    world.settle()
    assert "Job/flowers-1" in world.created


def test_a_running_attempt_outlives_its_profile():
    world = running()
    world.profiles = {}
    world.settle()
    assert world.status["state"] == "Running"


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        pytest.param({"reason": "ErrImagePull", "message": "not found: trainer:1"}, "ImagePullFailed", id="pull"),
        pytest.param(
            {"reason": "CreateContainerConfigError", "message": "no user"}, "ContainerConfigError", id="config"
        ),
    ],
)
def test_a_container_that_cannot_start_says_why(waiting, reason):
    world = World()
    world.settle()
    world.pods["flowers-1-0"]["status"]["containerStatuses"] = [{"name": "trainer", "state": {"waiting": waiting}}]
    world.settle()
    assert world.condition("Reconciling") == ("True", reason)
    assert waiting["message"] in world.ready_message
    patches = len(world.patches)
    waiting |= {"reason": "ImagePullBackOff" if reason == "ImagePullFailed" else waiting["reason"], "message": "again"}
    world.settle()
    assert len(world.patches) == patches  # kubelet's second wording is no news
    world.run("flowers-1")
    world.settle()
    assert world.condition("Ready") == ("True", "Running")


def test_unschedulable_pods_say_what_the_scheduler_says():
    world = World()
    world.settle()
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "claim 'x' not found"}
    world.pods["flowers-1-0"]["status"]["conditions"] = [condition]
    world.settle()
    assert world.condition("Ready") == ("False", "Unschedulable")
    assert "claim 'x' not found" in world.ready_message


def test_pods_that_nobody_makes_are_noticed():
    world = World()
    world.settle()
    world.pods.clear()
    assert world.look().requeue_after == pytest.approx(10)
    world.wait(10)
    world.settle()
    assert world.condition("Ready") == ("False", "PodsNotCreated")


@pytest.mark.parametrize(
    ("code", "reason"), [pytest.param(409, "NameTaken", id="name taken"), pytest.param(422, "Rejected", id="invalid")]
)
def test_a_refused_child_is_a_condition(code, reason):
    world = World()
    world.refusal = Refusal("Job", "flowers-1", code, "no")
    world.settle()
    assert world.condition("Stalled") == ("True", reason)
    assert "Job flowers-1 was refused: no" in world.ready_message
    world.refusal = None
    world.settle()
    assert "Job/flowers-1" in world.created


def test_old_attempts_make_room():
    world = World(restart={"maxRestarts": 9, "backoffSeconds": 0})
    for attempt in range(1, 7):
        world.settle()
        world.run(f"flowers-{attempt}")
        world.settle()
        world.end(f"flowers-{attempt}", 0, 70)
        world.leave(f"flowers-{attempt}")
    world.settle()
    assert len(world.jobs) <= 4
    assert world.status["restarts"] == 6


def test_times_sum_to_the_wall_clock_and_are_priced():
    world = World(numNodes=1)
    world.settle()
    world.wait(20)
    world.run("flowers-1")
    world.settle()
    world.wait(100)
    world.end("flowers-1", 0, 0, message(time={"startup": 10.0, "compute": 70.0, "dataWait": 12.5}))
    world.settle()
    time = {name: float(seconds) for name, seconds in world.status["time"].items()}
    assert time["total"] == pytest.approx(120) == pytest.approx(sum(time.values()) - time["total"])
    assert (time["queued"], time["compute"], time["other"]) == (20, 70, pytest.approx(7.5))
    assert world.status["cost"] == "0.1000 USD"  # 100 s at 3.6 per hour


def test_work_after_the_last_checkpoint_is_lost():
    world = running(numNodes=1)
    world.wait(100)
    world.end(
        "flowers-1",
        0,
        70,
        message(Reason.SOFTWARE_ERROR, 70, step=100, steps=200, checkpoint_step=75, time={"compute": 80.0}),
    )
    world.settle()
    time = world.status["time"]
    assert (float(time["compute"]), float(time["lostWork"])) == (pytest.approx(60), pytest.approx(20))


def test_an_attempt_without_a_word_is_lost_work():
    world = running(numNodes=1)
    world.wait(100)
    world.disrupt("flowers-1", 0)
    world.settle()
    assert float(world.status["time"]["lostWork"]) == pytest.approx(100)


def test_nothing_is_done_to_a_job_that_is_being_deleted():
    world = World()
    world.body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    decision = world.look()
    assert (decision.create, decision.status) == ((), None)


def test_events_tell_the_story_once():
    world = running(restart={"maxRestarts": 1, "backoffSeconds": 0})
    world.end("flowers-1", 0, 70)
    world.leave("flowers-1")
    world.settle()
    world.run("flowers-2")
    world.settle()
    world.end("flowers-2", 0, 0)
    world.end("flowers-2", 1, 0)
    world.settle()
    reasons = [event.reason for event in world.events]
    assert reasons == [
        "AttemptStarted", "Running", "AttemptFailed", "AttemptStarted", "Running", "AttemptSucceeded", "Completed",
    ]  # fmt: skip


def test_a_stale_status_of_a_newer_version_is_read_as_far_as_it_goes():
    world = running()
    world.body["status"]["fieldOfTheFuture"] = {"a": 1}
    world.wait(1)
    world.now += timedelta(seconds=1)
    world.end("flowers-1", 0, 0)
    world.end("flowers-1", 1, 0)
    world.settle()
    assert world.status["attempts"][0]["result"] == "Succeeded"
