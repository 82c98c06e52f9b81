"""Queues and gangs: who is chosen, where a job stands that waits, and what a preemption costs."""

import json

import pytest

from darkroom_api import names
from darkroom_api.v1alpha1.scheduling import Gang
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job.gangs import times
from darkroom_operator.core.training_job.queueing import APIS, Obstacle, choose
from darkroom_operator.core.training_job.status import PODS_DUE_SECONDS
from tests.core.world import VISION, World

ALL = {gang.value: versions[0][0] for gang, versions in APIS.items()}
ALPHA = {"Native": "scheduling.k8s.io/v1alpha2"}
QUEUE = {"scheduling": {"queue": "vision"}}
NO_ROOM = "insufficient unused quota for cpu in flavor default, 1 more needed"


def only(*gangs: str) -> dict[str, str]:
    return {gang: ALL[gang] for gang in gangs}


@pytest.mark.parametrize(
    ("scheduling", "nodes", "profile", "served", "expected"),
    [
        pytest.param({}, 2, {}, {}, Gang.NONE, id="a plain cluster"),
        pytest.param({}, 2, {}, ALL, Gang.NATIVE, id="the native API, where it is"),
        pytest.param({}, 2, {}, ALPHA, Gang.NONE, id="but nobody is made to use an alpha"),
        pytest.param({"gang": "Native"}, 2, {}, ALPHA, Gang.NATIVE, id="who asks for it may"),
        pytest.param({}, 1, {}, ALL, Gang.NONE, id="one pod is no gang"),
        pytest.param({"gang": "Volcano"}, 1, {}, ALL, Gang.VOLCANO, id="unless it is asked for"),
        pytest.param({"gang": "None"}, 2, {}, ALL, Gang.NONE, id="none, as asked"),
        pytest.param({"queue": "vision"}, 1, {}, ALL, Gang.KUEUE, id="a queue of Kueue holds single pods too"),
        pytest.param({"queue": "vision"}, 2, {}, only("Volcano"), Gang.VOLCANO, id="a queue of Volcano"),
        pytest.param({"queue": "vision"}, 2, {}, only("Native"), names.REASON_NO_QUEUE, id="a queue that nobody has"),
        pytest.param(
            {"queue": "vision", "topology": {"key": "rack"}},
            2,
            {},
            only("Volcano"),
            names.REASON_NO_QUEUE,
            id="Volcano does not know Kueue's topologies",
        ),
        pytest.param({}, 2, {"scheduler_name": "volcano"}, ALL, Gang.VOLCANO, id="the profile's scheduler: Volcano"),
        pytest.param(
            {}, 2, {"scheduler_name": "plugins"}, ALL, Gang.COSCHEDULING, id="the profile's scheduler: plugins"
        ),
        pytest.param(
            {}, 2, {"scheduler_name": "mine"}, only("Native"), Gang.NONE, id="a scheduler of which nothing is known"
        ),
        pytest.param({"gang": "Kueue", "queue": "q"}, 2, {}, {}, names.REASON_NO_QUEUE, id="no Kueue"),
        pytest.param({"gang": "Coscheduling"}, 2, {}, {}, names.REASON_NO_GANG_SCHEDULER, id="no coscheduling"),
    ],
)
def test_choose(scheduling, nodes, profile, served, expected):
    spec = TrainingJobSpec.from_wire(json.dumps({"vision": VISION, "numNodes": nodes, "scheduling": scheduling}))
    chosen = choose(spec, Profile(**profile), served)
    assert (chosen.reason if isinstance(chosen, Obstacle) else chosen) == expected


def test_what_is_missing_is_named():
    world = World(scheduling={"gang": "Volcano"})
    world.settle()
    assert world.condition("Stalled") == ("True", names.REASON_NO_GANG_SCHEDULER)
    assert "podgroups of scheduling.volcano.sh/v1beta1" in world.ready_message
    world.served = only("Volcano")  # somebody installs it
    world.settle()
    assert world.jobs


def queued(**spec) -> World:
    world = World(**(QUEUE | spec))
    world.served = only("Kueue")
    world.settle()
    return world


def test_a_job_in_a_queue_says_so_and_why():
    world = queued()
    assert world.jobs["flowers-1"]["metadata"]["labels"][names.KUEUE_QUEUE] == "vision"
    assert world.status["state"] == "Queued"
    assert world.ready_message == f"attempt 1 waits in queue 'vision': {NO_ROOM}"
    assert world.condition("Reconciling") == ("True", names.REASON_QUEUED)
    assert (world.status["attempts"][0]["gang"], world.status["attempts"][0]["queue"]) == ("Kueue", "vision")
    assert [event.reason for event in world.events] == ["AttemptStarted", "Queued"]


def test_an_elastic_job_is_admitted_with_what_there_is_room_for():
    world = queued(numNodes=None, elastic={"minNodes": 2, "maxNodes": 4}, checkpoint={"claim": "runs"})
    notes = world.jobs["flowers-1"]["metadata"]["annotations"]
    assert (notes[names.KUEUE_MIN_PARALLELISM], notes[names.KUEUE_COMPLETIONS]) == ("2", "true")
    world.jobs["flowers-1"]["spec"] |= {"parallelism": 3, "completions": 3}  # Kueue's doing
    world.admit("flowers-1")
    world.run("flowers-1", 0, 1, 2)
    world.wait(PODS_DUE_SECONDS + 1)
    world.settle()
    assert (world.status["state"], world.status["nodes"]) == ("Running", "3/4")
    assert world.ready_message.endswith("3 of 4 nodes run, 2 are enough; queue 'vision' had room for 3")


def test_pods_that_a_queue_had_no_room_for_are_not_missed():
    world = queued(numNodes=None, elastic={"minNodes": 2, "maxNodes": 4}, checkpoint={"claim": "runs"})
    world.jobs["flowers-1"]["spec"] |= {"parallelism": 2, "completions": 2}
    world.admit("flowers-1")
    world.run("flowers-1", 0)
    world.wait(PODS_DUE_SECONDS + 1)
    world.settle()
    assert world.condition("Ready") == ("False", names.REASON_PENDING)


def test_a_job_of_a_fixed_size_is_never_admitted_in_part():
    notes = queued().jobs["flowers-1"]["metadata"]["annotations"]
    assert names.KUEUE_MIN_PARALLELISM not in notes


def test_it_is_looked_at_less_and_less_often():
    world = queued()
    waits = []
    for _ in range(12):
        waits.append(world.look().requeue_after)
        world.wait(waits[-1])
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (5.0, pytest.approx(waits[-2] * 1.25, rel=0.01))


def test_time_in_a_queue_is_no_start_up_time_and_not_counted():
    world = queued(startupDeadlineSeconds=60, activeDeadlineSeconds=300, budget={"maxDuration": "5m"})
    world.wait(7200)
    world.settle()
    assert world.status["state"] == "Queued"
    world.jobs["flowers-1"]["spec"]["suspend"] = False  # admitted, and the Job controller has not noticed yet
    world.settle()
    assert world.status["state"] == "Pending"
    world.admit("flowers-1")
    world.wait(59)
    world.settle()
    assert world.status["state"] == "Pending"
    world.run("flowers-1")
    world.wait(200)
    for index in (0, 1):
        world.end("flowers-1", index, 0)
    world.settle()
    assert world.status["state"] == "Complete"
    assert world.status["activeSeconds"] == 259
    assert world.status["time"]["queued"] == "7259"


def test_the_startup_deadline_counts_from_the_admission():
    world = queued(startupDeadlineSeconds=60)
    world.wait(7200)
    world.admit("flowers-1")
    world.wait(61)
    for _ in range(6):
        world.look()
        world.leave("flowers-1")
    assert world.condition("Failed") == ("True", names.REASON_STARTUP_DEADLINE_EXCEEDED)


def test_a_deadline_counts_from_the_admission():
    world = queued(activeDeadlineSeconds=100)
    world.wait(7200)
    world.admit("flowers-1")
    world.run("flowers-1")
    world.settle()
    assert 0 < world.look().requeue_after <= 100
    world.wait(101)
    for _ in range(6):
        world.look()
        world.leave("flowers-1")
    assert world.condition("Failed") == ("True", names.REASON_DEADLINE_EXCEEDED)


def begun(**spec) -> World:
    world = queued(**spec)
    world.admit("flowers-1")
    world.run("flowers-1")
    world.wait(100)
    world.settle()
    assert world.status["state"] == "Running"
    return world


@pytest.mark.parametrize("exit_code", [75, 143, 0, 137])
def test_a_preemption_is_free_and_the_next_attempt_queues_again(exit_code):
    world = begun(restart={"maxRestarts": 0})
    world.preempt("flowers-1", "Preempted to accommodate a workload")
    world.look()
    world.leave("flowers-1", exit_code)
    world.settle()
    world.settle()
    first, second = world.status["attempts"]
    assert (first["result"], first["reason"]) == ("Disrupted", names.REASON_PREEMPTED)
    assert first["message"] == "queue 'vision' took the nodes back: Preempted to accommodate a workload"
    assert (world.status["restarts"], world.status["disruptions"]) == (0, 1)
    assert (second["result"], world.status["state"]) == ("Running", "Queued")
    assert world.jobs["flowers-2"]["spec"]["suspend"]
    world.admit("flowers-2")
    world.run("flowers-2")
    world.settle()
    assert world.status["state"] == "Running"


def test_a_pod_that_had_crashed_before_is_not_excused():
    world = begun()
    world.end("flowers-1", 0, 70)
    world.preempt("flowers-1", "Preempted to accommodate a workload")
    del world.pods["flowers-1-0"]["metadata"]["deletionTimestamp"]
    world.leave("flowers-1")
    world.settle()
    assert world.status["attempts"][0]["reason"] == names.REASON_SOFTWARE_ERROR
    assert world.status["restarts"] == 1


def test_a_job_sent_back_before_it_ran_keeps_its_place():
    world = queued()
    world.admit("flowers-1")
    world.settle()
    assert world.status["attempts"][0]["admittedTime"]
    world.preempt("flowers-1", "Preempted to accommodate a workload")
    world.pods.clear()
    world.settle()
    assert (world.status["state"], list(world.jobs)) == ("Queued", ["flowers-1"])
    assert "admittedTime" not in world.status["attempts"][0]


def test_suspend_takes_a_job_out_of_the_queue():
    world = queued()
    world.edit(suspend=True)
    world.settle()
    assert (world.status["state"], world.jobs) == ("Suspended", {})
    world.edit(suspend=False)
    world.settle()
    assert (world.status["state"], list(world.jobs)) == ("Queued", ["flowers-2"])


def test_another_queue_is_another_attempt_while_nothing_has_run():
    world = queued()
    world.edit(scheduling={"queue": "other"})
    world.settle()
    world.settle()
    assert [job["metadata"]["labels"][names.KUEUE_QUEUE] for job in world.jobs.values()] == ["other"]
    assert world.status["restarts"] == 0


def test_a_running_attempt_keeps_its_queue():
    world = begun()
    world.edit(scheduling={"queue": "other"})
    world.settle()
    assert (world.status["state"], list(world.jobs)) == ("Running", ["flowers-1"])


@pytest.mark.parametrize(
    ("spec", "held", "words"),
    [
        pytest.param(
            QUEUE, ("LocalQueue vision doesn't exist", "Inadmissible"), "LocalQueue vision doesn't", id="no such queue"
        ),
        pytest.param(QUEUE, None, "is Kueue running, and does it manage this namespace?", id="nobody takes it in"),
        pytest.param({}, None, "set spec.scheduling.queue", id="suspended for want of a queue"),
    ],
)
def test_a_queue_that_nobody_serves(spec, held, words):
    world = World(**spec)
    world.served = only("Kueue")
    world.settle()
    world.jobs["flowers-1"]["spec"]["suspend"] = True
    world.pods.clear()
    world.workloads.clear()
    if held:
        world.hold("flowers-1", held[0], reason=held[1])
    world.settle()
    assert world.status["state"] == ("Stalled" if held else "Queued")
    world.wait(16)
    world.settle()
    assert world.condition("Stalled") == ("True", names.REASON_NO_QUEUE)
    assert words in world.ready_message
    assert [event.type for event in world.events if event.reason == names.REASON_NO_QUEUE] == ["Warning"]
    world.admit("flowers-1")
    world.settle()
    assert world.status["state"] == "Pending"


@pytest.mark.parametrize("gang", ["Volcano", "Coscheduling", "Native"])
def test_a_gang_has_a_pod_group_that_goes_with_its_job(gang):
    world = World(scheduling={"gang": gang})
    world.served = only(gang)
    world.settle()
    (group,) = world.pod_groups.values()
    assert (group["apiVersion"], group["metadata"]["name"]) == (ALL[gang], "flowers-1")
    (owner,) = group["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", world.jobs["flowers-1"]["metadata"]["uid"])
    assert world.status["attempts"][0]["podGroup"] == "flowers-1"
    assert world.created.count("PodGroup/flowers-1") == 1


def test_a_crash_before_the_record_is_stored_makes_the_group_again():
    world = World(scheduling={"gang": "Volcano"})
    world.served = only("Volcano")
    world.look()  # the Job
    decision = world.look()  # its record, and the group
    assert [body["kind"] for body in decision.create] == ["PodGroup"]
    del world.body["status"]
    assert [body["kind"] for body in world.look().create] == ["PodGroup"]


@pytest.mark.parametrize(
    ("quantity", "total"), [("500m", "1500m"), ("16Gi", "48Gi"), ("2", "6"), ("0.5", "1.5"), ("10", "30")]
)
def test_times(quantity, total):
    assert times(quantity, 3) == total
