"""Real trainings in real containers, disturbed as clusters disturb them."""

import shutil
import time

import pytest

from tests.cluster.conftest import VISION, load
from tests.kube import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.real, pytest.mark.timeout(600)]

LONG = VISION | {"schedule": {"epochs": 4}}


KILL_WORKER = """
import os, signal
for pid in os.listdir("/proc"):
    if pid.isdigit() and b"worker" in open(f"/proc/{pid}/cmdline", "rb").read().split(bytes(1)):
        os.kill(int(pid), signal.SIGKILL)
"""


def steps_of(status) -> int:
    return status["progress"]["step"]


def test_a_deleted_pod_costs_nothing_but_the_work_since_the_checkpoint(train, kube, namespace):
    job = train(vision=LONG, numNodes=2, restart={"maxRestarts": 0, "backoffSeconds": 1})
    job.trains(step=20)
    kube.delete("Pod", namespace, job.pods(1)[1]["metadata"]["name"])
    eventually(lambda: job.status.get("attempt") == 2, within=60, what="second attempt")
    status = job.reaches("Complete", within=240)
    assert (status["restarts"], status["disruptions"]) == (0, 1)
    assert status["attempts"][0]["reason"] == "AskedToLeave"
    assert status["progress"]["percent"] == 100
    assert float(status["time"]["restore"]) > 0


def test_suspend_saves_and_resume_goes_on(train, kube, namespace):
    job = train(vision=LONG)
    job.trains(step=20)
    kube.merge("TrainingJob", namespace, "flowers", {"spec": {"suspend": True}})
    status = job.reaches("Suspended", within=60)
    assert {pod["status"]["phase"] for pod in job.pods(1)} <= {"Succeeded", "Failed"}
    assert 0 < status["progress"]["percent"] < 100
    saved = steps_of(status)
    kube.merge("TrainingJob", namespace, "flowers", {"spec": {"suspend": False}})
    status = job.reaches("Complete", within=240)
    assert steps_of(status) > saved
    assert [a["result"] for a in status["attempts"]] == ["Suspended", "Succeeded"]


def test_an_elastic_job_goes_on_without_a_node_and_takes_it_back(train, kube, cluster, namespace):
    """A drain: no pod finds a node any more, and one that runs is evicted."""
    job = train(
        vision=VISION | {"schedule": {"epochs": 6}},
        elastic={"minNodes": 2, "maxNodes": 3},
        resourcesPerNode={"cpu": "400m", "memory": "1500Mi"},
        restart={"maxRestarts": 0},
    )
    eventually(lambda: job.status.get("nodes") == "3/3", within=120, what="three nodes")
    job.trains(step=5)
    (node,) = cluster.node_names
    cluster.kubectl("cordon", node)
    try:
        lost = job.pods(1)[2]["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": lost, "namespace": namespace}}
        kube.request("POST", f"{kube.path('Pod', namespace, lost)}/eviction", eviction)
        began = time.monotonic()
        eventually(lambda: kube.get("Pod", namespace, lost) is None, what="the pod has gone")
        saved = job.newest_step
        eventually(lambda: job.newest_step > saved, within=120, what="training goes on")
        assert time.monotonic() - began < 60
        print(f"went on {time.monotonic() - began:.0f} s after the eviction")
        eventually(lambda: job.status["nodes"] == "2/3", what="two nodes")
        assert job.status["state"] == "Running"
    finally:
        cluster.kubectl("uncordon", node)
    eventually(lambda: job.status["nodes"] == "3/3", within=120, what="three nodes again")
    eventually(lambda: "in 3 micro-batches on 3 process(es)" in job.logs(), within=120, what="grown again")
    status = job.reaches("Complete", within=300)
    assert (status["attempt"], status["restarts"], status["disruptions"]) == (1, 0, 0)
    assert float(status["nodeHours"]) > 0


def test_a_killed_worker_process_spends_a_restart(train, cluster, namespace):
    job = train(vision=LONG, restart={"maxRestarts": 1, "backoffSeconds": 1})
    job.trains(step=10)
    pod = job.pods(1)[0]["metadata"]["name"]
    kill = KILL_WORKER
    cluster.kubectl("-n", namespace, "exec", pod, "--", "python3", "-c", kill)
    eventually(lambda: job.status.get("restarts") == 1, within=60, what="a restart")
    assert job.status["failure"]["reason"] == "Killed"
    assert job.status["failure"]["exitCode"] == 137
    job.reaches("Complete", within=240)


def test_the_operator_may_die_while_pods_train(train, kube, cluster):
    job = train(vision=LONG)
    job.trains(step=5)
    before = [pod["metadata"]["uid"] for pod in job.pods(1)]
    cluster.kubectl("-n", "darkroom-system", "delete", "pod", "--all", "--force", "--grace-period=0")
    status = job.reaches("Complete", within=240)
    assert [pod["metadata"]["uid"] for pod in job.pods(1)] == before
    assert status["attempt"] == 1


@pytest.mark.parametrize(
    ("spoil", "reason", "words"),
    [
        pytest.param(
            lambda root: [f.unlink() for f in (root / "3").iterdir()], "DataError", "3", id="empty class folder"
        ),
        pytest.param(lambda root: (root / "nothing").mkdir(), "DataError", "nothing", id="a class without images"),
    ],
)
def test_bad_data_fails_at_once_and_names_the_folder(train, cluster, namespace, digits, tmp_path, spoil, reason, words):
    bad = tmp_path / "bad"
    shutil.copytree(digits, bad)
    spoil(bad)
    cluster.volume("bad", namespace=namespace, source=bad, read_only=True)
    job = train(vision=VISION | {"data": {"claim": "bad"}})
    status = job.reaches("Failed")
    assert job.condition("Failed")["reason"] == reason
    assert words in status["failure"]["message"]
    assert status["attempt"] == 1


def test_a_wrong_digest_of_the_weights_is_named(train, cluster, namespace, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"not these")
    cluster.volume("weights", namespace=namespace, source=tmp_path, read_only=True)
    weights = {"claim": "weights", "path": "/w.pth", "sha256": "0" * 64}
    job = train(vision=VISION | {"model": VISION["model"] | {"weights": weights}})
    status = job.reaches("Failed")
    assert status["failure"]["reason"] == "ConfigError"
    assert "w.pth" in status["failure"]["message"]


def test_a_read_only_checkpoint_claim_fails_before_training(train, cluster, namespace, digits):
    job = train(checkpoint={"claim": "digits"}, vision=VISION | {"data": {"claim": "digits"}})
    status = job.reaches("Failed")
    assert status["failure"]["reason"] == "ConfigError"
    assert "/darkroom/runs" in status["failure"]["message"]


HOG = "x=[]\nwhile True: x.append(bytearray(10_000_000))"


def test_a_container_that_eats_too_much_is_out_of_memory(train, kube, trainer_image):
    container = {"image": trainer_image, "command": ["python3", "-c", HOG], "launcher": "None"}
    job = train(container=container, resourcesPerNode={"cpu": "100m", "memory": "64Mi"}, restart={"maxRestarts": 0})
    status = job.reaches("Failed")
    assert status["failure"]["reason"] == "OutOfMemory"


def test_a_container_speaks_through_its_exit_code_and_its_last_line(train, trainer_image):
    program = "import sys; print('Traceback', file=sys.stderr); print('KeyError: label', file=sys.stderr); sys.exit(3)"
    container = {"image": trainer_image, "command": ["python3", "-c", program], "launcher": "None"}
    job = train(container=container, resourcesPerNode={"cpu": "100m", "memory": "64Mi"}, restart={"maxRestarts": 0})
    status = job.reaches("Failed")
    assert (status["failure"]["exitCode"], status["failure"]["message"]) == (3, "KeyError: label")
    assert status["failure"]["node"]


def test_an_image_that_cannot_be_pulled_is_a_condition_in_seconds(train):
    container = {"image": "localhost/darkroom/nowhere:1", "launcher": "None"}
    job = train(container=container, resourcesPerNode={"cpu": "100m", "memory": "64Mi"})
    began = time.monotonic()
    eventually(lambda: job.condition("Ready")["reason"] == "ImagePullFailed", within=30, what="ImagePullFailed")
    assert "nowhere" in job.condition("Ready")["message"]
    assert time.monotonic() - began < 30


def test_tensorflow_workers_find_each_other(train, cluster):
    """MultiWorkerMirroredStrategy over two pods, with TF_CONFIG as the operator makes it."""
    image = load(cluster, "tensorflow")
    container = {"image": image, "launcher": "TensorFlow"}
    job = train(container=container, numNodes=2, restart={"maxRestarts": 0})
    job.reaches("Complete")
    said = job.logs()
    for index in (0, 1):
        assert f"worker {index} of 2: weight 1.500 after one step, 3.000 at the end" in said


def test_a_bare_torchrun_joins_the_other_nodes(train, trainer_image):
    program = (
        "import torch.distributed as d, torch; d.init_process_group('gloo'); t=torch.ones(1); d.all_reduce(t);"
        "assert t.item()==2; print('sum', t.item()); d.destroy_process_group()"
    )
    script = f"printf '%s' \"{program}\" > /tmp/train.py && exec python3 -m torch.distributed.run /tmp/train.py"
    container = {"image": trainer_image, "command": ["sh", "-c", script]}
    job = train(container=container, numNodes=2, restart={"maxRestarts": 0})
    job.reaches("Complete")
