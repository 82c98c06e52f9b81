"""A TrainingJob's life against the real API server, Job controller, scheduler and garbage collector."""

import time

import pytest

from darkroom_api.report import Reason, TerminationMessage
from tests.kube import Refused, eventually

pytestmark = pytest.mark.cluster


def test_apply_to_complete(flowers, kube, namespace):
    began = time.monotonic()
    job = flowers()
    eventually(lambda: len(job.pods(1)) == 2, what="both pods")
    assert time.monotonic() - began < 5  # under 1 s when idle: bench/
    job.reaches("Running")
    assert job.condition("Ready")[:2] == ("True", "Running")
    service = kube.get("Service", namespace, "darkroom-flowers")
    assert service["spec"]["publishNotReadyAddresses"]
    job.end(1, 0, 0)
    status = job.reaches("Complete")
    assert status["finished"]
    assert job.condition("Complete")[0] == "True"
    assert status["observedGeneration"] == job.now["metadata"]["generation"]
    names = [child["metadata"]["name"] for child in kube.list("Job", namespace)]
    assert names == ["flowers-1"]


def test_a_crash_restarts_the_gang_and_the_budget_ends_it(flowers):
    job = flowers(restart={"maxRestarts": 1, "backoffSeconds": 1})
    job.reaches("Running")
    said = TerminationMessage(reason=Reason.SOFTWARE_ERROR, exit_code=70, rank=1, error="ValueError: boom").encode()
    job.end(1, 70, termination_message=said)
    eventually(lambda: job.status.get("attempt") == 2, within=30, what="second attempt")
    status = job.status
    assert status["restarts"] == 1
    assert status["failure"]["message"] == "ValueError: boom"
    job.reaches("Running")
    job.end(2, 70)
    job.reaches("Failed")
    assert job.condition("Failed")[1] == "RestartsExhausted"


@pytest.mark.parametrize(
    ("code", "reason"), [pytest.param(65, "DataError", id="data"), pytest.param(78, "ConfigError", id="config")]
)
def test_what_no_restart_can_help_fails_at_once(flowers, code, reason):
    job = flowers()
    job.reaches("Running")
    job.end(1, code)
    job.reaches("Failed")
    assert job.condition("Failed")[1] == reason
    assert job.status["failure"]["exitCode"] == code
    assert job.status["attempt"] == 1


def test_an_eviction_is_free(flowers):
    job = flowers(restart={"maxRestarts": 0, "backoffSeconds": 0})
    job.reaches("Running")
    job.end(1, 137, disrupted="true")
    eventually(lambda: job.status.get("attempt") == 2, within=30, what="second attempt")
    assert (job.status["restarts"], job.status["disruptions"]) == (0, 1)


def test_out_of_memory_is_named(flowers):
    job = flowers(restart={"maxRestarts": 0})
    job.reaches("Running")
    job.end(1, 137, reason="OOMKilled")
    job.reaches("Failed")
    assert job.status["failure"]["reason"] == "OutOfMemory"


def test_suspend_and_resume(flowers, kube, namespace):
    job = flowers(suspend=True)
    job.reaches("Suspended")
    assert job.pods(1) == []
    job.edit(suspend=False)
    job.reaches("Running")
    job.edit(suspend=True)
    job.reaches("Suspended")
    assert job.pods(1) == []
    job.edit(suspend=False)
    eventually(lambda: job.status.get("attempt") == 2, what="second attempt")
    job.reaches("Running")
    assert job.status["restarts"] == 0
    job.edit(suspend=True)
    job.reaches("Suspended")
    words = "suspending: waiting for the pods to save and leave"
    (told,) = [event for event in kube.list("Event", namespace) if event["note"] == words]
    assert told["series"]["count"] == 2, "the second time is counted in the first Event"


def test_the_deadline_ends_it(flowers, kube, namespace):
    job = flowers(activeDeadlineSeconds=3)
    job.reaches("Failed")
    assert job.condition("Failed")[1] == "DeadlineExceeded"
    eventually(lambda: not job.pods(1), what="pods gone")


def test_the_ttl_deletes_it_and_its_children(flowers, kube, namespace):
    job = flowers(ttlSecondsAfterFinished=1)
    job.reaches("Running")
    job.end(1, 0, 0)
    eventually(lambda: not job.now, what="TrainingJob gone")
    eventually(lambda: not kube.list("Job", namespace), what="Jobs gone")
    eventually(lambda: not kube.list("Service", namespace), what="Services gone")


def test_deletion_takes_everything_along(flowers, kube, namespace):
    job = flowers()
    job.reaches("Running")
    kube.delete("TrainingJob", namespace, "flowers")
    eventually(lambda: not kube.list("Pod", namespace), within=30, what="pods gone")
    assert kube.list("Job", namespace) == []


def test_deleted_children_of_a_running_attempt(flowers, kube, namespace):
    job = flowers(restart={"maxRestarts": 0, "backoffSeconds": 0})
    job.reaches("Running")
    kube.delete("Service", namespace, "darkroom-flowers")
    eventually(lambda: kube.get("Service", namespace, "darkroom-flowers"), what="Service again")
    kube.delete("Job", namespace, "flowers-1")
    eventually(lambda: job.status.get("attempt") == 2, within=30, what="second attempt")
    assert job.status["attempts"][0]["result"] == "Disrupted"


def test_terminal_is_final(flowers, kube, namespace):
    job = flowers()
    job.reaches("Running")
    job.end(1, 0, 0)
    job.reaches("Complete")
    kube.delete("Job", namespace, "flowers-1")
    job.edit(suspend=True)
    time.sleep(2)
    assert kube.list("Job", namespace) == []
    assert job.status["state"] == "Complete"
    assert job.status["observedGeneration"] == job.now["metadata"]["generation"]


def test_a_namesake_right_after_deletion_gets_children_of_its_own(flowers, kube, namespace):
    first = flowers()
    first.reaches("Running")
    kube.delete("TrainingJob", namespace, "flowers")
    second = flowers()
    second.reaches("Running", within=60)
    owners = {ref["uid"] for child in kube.list("Job", namespace) for ref in child["metadata"]["ownerReferences"]}
    assert owners == {second.body["metadata"]["uid"]}


def test_a_service_of_somebody_else_is_left_alone(flowers, kube, namespace):
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "darkroom-flowers"}}
    kube.create(theirs | {"spec": {"ports": [{"port": 80}]}}, namespace)
    job = flowers()
    job.reaches("Stalled")
    assert job.condition("Stalled")[1] == "NameTaken"
    assert kube.get("Service", namespace, "darkroom-flowers")["spec"]["ports"][0]["port"] == 80
    kube.delete("Service", namespace, "darkroom-flowers")
    job.reaches("Running", within=60)


def test_an_unknown_profile_recovers_when_it_appears(flowers, profiles):
    job = flowers(profile="big")
    job.reaches("Stalled")
    status, reason, message = job.condition("Stalled")
    assert (status, reason) == ("True", "ProfileNotFound")
    assert "spec.profile" in message
    before = profiles.read_text()
    profiles.write_text(before + "\nbig: {image: x, resources: {cpu: 100m}}\n")
    try:
        job.reaches("Running", within=30)
    finally:
        profiles.write_text(before)


def test_unschedulable_pods_say_so_and_recover(flowers, kube, namespace):
    job = flowers(container={"image": "x", "mounts": [{"claim": "missing", "mountPath": "/data"}]})
    eventually(lambda: job.condition("Ready")[1] == "Unschedulable", within=15, what="Unschedulable")
    assert "missing" in job.condition("Ready")[2]
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{namespace}-missing"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteMany"],
                "storageClassName": "",
                "hostPath": {"path": "/nonexistent"},
                "claimRef": {"namespace": namespace, "name": "missing"},
            },
        }
    )
    claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
    kube.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "missing"}, "spec": claim}, namespace
    )
    job.reaches("Running", within=60)


def test_a_quota_counts_training_jobs(flowers, kube, namespace):
    hard = {"count/trainingjobs.darkroom.dev": "1"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one"}, "spec": {"hard": hard}}
    kube.create(quota, namespace)
    eventually(lambda: kube.get("ResourceQuota", namespace, "one").get("status", {}).get("hard"), what="in force")
    job = flowers()
    second = {key: job.body[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "second"}}
    with pytest.raises(Refused, match="exceeded quota: one"):
        kube.create(second, namespace)


def test_a_quota_that_refuses_the_pods_is_noticed(flowers, kube, namespace):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    kube.create(quota, namespace)
    eventually(
        lambda: kube.get("ResourceQuota", namespace, "none").get("status", {}).get("hard"), what="quota in force"
    )
    job = flowers()
    eventually(lambda: job.condition("Ready")[1] == "PodsNotCreated", within=30, what="PodsNotCreated")
    kube.delete("ResourceQuota", namespace, "none")
    job.reaches("Running", within=90)
