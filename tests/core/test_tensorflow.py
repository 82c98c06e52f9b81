"""TF_CONFIG, as tf.distribute reads it."""

import json

import pytest

from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job.objects import job
from darkroom_operator.core.training_job.tensorflow import tensorflow_env
from tests.core.test_objects import OWNER, spec


def for_pod(env, index: int):
    """What kubelet makes of it in the pod of this index."""
    variable, config = env
    assert (
        variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-completion-index']"
    )
    return json.loads(config["value"].replace(f"$({variable['name']})", str(index)))


@pytest.mark.parametrize(
    ("hosts", "index", "expected"),
    [
        pytest.param(
            ["localhost"],
            0,
            {"cluster": {"worker": ["localhost:2222"]}, "task": {"type": "worker", "index": 0}},
            id="alone",
        ),
        pytest.param(
            ["a-0.s", "a-1.s"],
            1,
            {"cluster": {"worker": ["a-0.s:2222", "a-1.s:2222"]}, "task": {"type": "worker", "index": 1}},
            id="the second of two",
        ),
    ],
)
def test_tensorflow_env(hosts, index, expected):
    assert for_pod(tensorflow_env(hosts), index) == expected


def test_in_the_pods_of_an_attempt():
    made = job(OWNER, spec(container={"image": "mine:1", "launcher": "TensorFlow"}, numNodes=3), Profile(), attempt=4)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    names = [item["name"] for item in container["env"]]
    assert not [name for name in names if name.startswith("PET_")]
    assert names.index("DARKROOM_NODE_INDEX") < names.index("TF_CONFIG")  # kubelet knows what came before alone
    env = [item for item in container["env"] if item["name"] in ("DARKROOM_NODE_INDEX", "TF_CONFIG")]
    hosts = [f"flowers-4-{index}.darkroom-flowers:2222" for index in range(3)]
    assert for_pod(env, 2) == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": 2}}


def test_the_largest_fits_into_a_variable():
    """128 KiB by the kernel, for names of the greatest length."""
    hosts = [f"{'n' * 54}-1000-{index}.darkroom-{'n' * 54}" for index in range(256)]
    assert len(tensorflow_env(hosts)[1]["value"]) < 128 * 1024
