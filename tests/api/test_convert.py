"""Manifests of others become ours: their published examples, from `foreign.yaml`."""

import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom_api.convert import convert
from darkroom_api.convert.source import ConversionError
from tests.api.server import Server

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("foreign.yaml")
FOREIGN: dict[str, dict[str, Any]] = {body["metadata"]["name"]: body for body in yaml.safe_load_all(FILE.read_text())}
IMAGE = "docker.io/pytorch/pytorch:2.9.1"


def spec_of(name: str) -> dict[str, Any]:
    return convert(FOREIGN[name], image=IMAGE).body["spec"]


def losses_of(body: dict[str, Any]) -> list[str]:
    return [str(lost) for lost in convert(body, image=IMAGE).lost]


def changed(name: str, path: str, value: Any) -> dict[str, Any]:
    """An example with another value at a dotted path."""
    body = copy.deepcopy(FOREIGN[name])
    *parents, last = path.split(".")
    node: Any = body
    for parent in parents:
        node = node[int(parent)] if parent.isdigit() else node.setdefault(parent, {})
    node[last] = value
    return body


def test_katib_hyperband():
    assert spec_of("hyperband") == {
        "objectives": [{"metric": "Validation-accuracy", "direction": "Maximize", "target": "0.99"}],
        "parameters": [
            {"name": "lr", "env": "LR", "double": {"min": "0.01", "max": "0.03"}},
            {"name": "num-layers", "env": "NUM_LAYERS", "int": {"min": 2, "max": 5}},
            {"name": "optimizer", "env": "OPTIMIZER", "choice": {"values": ["sgd", "adam", "ftrl"]}},
            {"name": "num-epochs", "env": "NUM_EPOCHS", "choice": {"values": ["1"]}},
        ],
        "algorithm": {"name": "Auto"},
        "pruning": {"hyperband": {"minEpochs": 1, "maxEpochs": 2, "reductionFactor": 2}},
        "stopping": {"maxTrials": 2, "maxFailedTrials": 2},
        "parallelism": 2,
        "trialTemplate": {
            "spec": {
                "container": {
                    "image": "docker.io/kubeflowkatib/mxnet-mnist:v0.15.0",
                    "command": [
                        "python3",
                        "/opt/mxnet-mnist/mnist.py",
                        "--batch-size=32",
                        "--lr=$(LR)",
                        "--num-layers=$(NUM_LAYERS)",
                        "--optimizer=$(OPTIMIZER)",
                        "--num-epochs=$(NUM_EPOCHS)",
                    ],
                    "launcher": "None",
                },
                "numNodes": 1,
            }
        },
    }


def test_katib_median_stop():
    assert spec_of("median-stop")["pruning"] == {"median": {"startupTrials": 1, "warmupEpochs": 2}}


def test_katib_distributions():
    spec = spec_of("optuna-distribution")
    assert [p.get("double", p.get("int")) for p in spec["parameters"]] == [
        {"min": "1", "max": "5", "step": "0.1"},
        {"min": "0.001", "max": "1", "step": "0.1"},
        {"min": 1, "max": 3},
        {"min": 32, "max": 64, "scale": "Log"},
    ]
    assert spec["algorithm"] == {"name": "TPE"}
    assert spec["objectives"] == [{"metric": "loss", "direction": "Minimize", "target": "0.05"}]


def test_katib_with_pytorch_jobs():
    template = spec_of("pytorchjob-mnist")["trialTemplate"]["spec"]
    assert template["numNodes"] == 2
    assert template["container"]["launcher"] == "Torchrun"
    assert template["container"]["command"][:4] == ["torchrun", "--no-python", "python3", "/opt/pytorch-mnist/mnist.py"]
    assert template["container"]["command"][4:] == ["--lr=$(LR)", "--momentum=$(MOMENTUM)"]


def test_katib_with_tensorflow_jobs():
    template = spec_of("tfjob-mnist-with-summaries")["trialTemplate"]["spec"]
    assert (template["numNodes"], template["container"]["launcher"]) == (2, "TensorFlow")


def test_katib_with_train_jobs():
    template = spec_of("torch-distributed-example")["trialTemplate"]["spec"]
    assert (template["numNodes"], template["container"]["launcher"]) == (2, "Torchrun")
    assert template["container"]["command"][-1] == "--lr=$(LR)"


def test_katib_variables_of_the_template():
    """A parameter that the template hands over in a variable of its own keeps that; facts of the trial are there already."""
    spec = spec_of("trial-metadata-substitution")
    assert [p["env"] for p in spec["parameters"]] == ["LEARNING_RATE"]
    env = {e["name"]: e["value"] for e in spec["trialTemplate"]["spec"]["container"]["env"]}
    assert env["TRIAL_NAME"] == "$(DARKROOM_JOB)"
    assert "LEARNING_RATE" not in env
    left = [line for line in losses_of(FOREIGN["trial-metadata-substitution"]) if " is left" in line]
    assert [line.split(": ")[1].split(" ")[0] for line in left] == [
        "${trialParameters.trialKind}",
        "${trialParameters.trialLabelCustom}",
    ]


def test_optimization_job():
    assert spec_of("tune-resnet") == {
        "objectives": [{"metric": "val_loss", "direction": "Minimize"}],
        "parameters": [
            {
                "name": "learning_rate",
                "env": "KUBEFLOW_TRAINER_OPT_LEARNING_RATE",
                "double": {"min": "0.0001", "max": "0.1", "scale": "Log"},
            },
            {"name": "layers", "env": "KUBEFLOW_TRAINER_OPT_LAYERS", "int": {"min": 2, "max": 8}},
            {
                "name": "batch_size",
                "env": "KUBEFLOW_TRAINER_OPT_BATCH_SIZE",
                "choice": {"values": ["16", "32", "64"]},
            },
        ],
        "algorithm": {"name": "Random", "seed": 42},
        "stopping": {"maxTrials": 20},
        "parallelism": 4,
        "trialTemplate": {
            "spec": {
                "container": {
                    "image": "docker.io/my-org/tuner:latest",
                    "command": ["torchrun", "train.py"],
                    "launcher": "Torchrun",
                },
                "resourcesPerNode": {"cpu": 4, "nvidia.com/gpu": 1},
                "numNodes": 2,
            }
        },
    }


def test_pytorch_job():
    assert convert(FOREIGN["pytorch-simple"]).body == {
        "apiVersion": "darkroom.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "pytorch-simple", "namespace": "kubeflow"},
        "spec": {
            "container": {
                "image": "docker.io/kubeflowkatib/pytorch-mnist:v1beta1-45c5727",
                "command": ["torchrun", "--no-python", "python3", "/opt/mnist/src/mnist.py", "--epochs=1"],
                "launcher": "Torchrun",
            },
            "numNodes": 2,
        },
    }


def test_elastic_pytorch_job():
    """It has torchrun already; a group that changes is for the built-in trainer."""
    spec = spec_of("elastic-example-imagenet")
    assert spec["container"]["command"][:3] == ["python", "-m", "torch.distributed.run"]
    assert (spec["numNodes"], spec["rendezvous"], spec["restart"]) == (2, "C10d", {"maxRestarts": 100})
    assert spec["resourcesPerNode"] == {"cpu": 4}
    paths = [line.split(":")[0] for line in losses_of(FOREIGN["elastic-example-imagenet"])]
    assert [path for path in paths if "elastic" in path] == [
        "spec.elasticPolicy.minReplicas",
        "spec.elasticPolicy.maxReplicas",
        "spec.elasticPolicy.metrics",
    ]


def test_train_job():
    converted = convert(FOREIGN["runtime-patches-example"], image=IMAGE)
    spec = converted.body["spec"]
    assert converted.body["metadata"]["labels"] == {"team": "ml-platform"}
    assert spec["scheduling"] == {"queue": "vision"}
    assert spec["container"]["image"] == IMAGE
    assert spec["resourcesPerNode"] == {"cpu": "4", "memory": "8Gi"}
    assert [lost.path for lost in converted.lost] == [
        "spec.runtimeRef",
        "spec.runtimePatches",
        "spec.trainer.resourcesPerNode.requests.cpu",
        "spec.trainer.resourcesPerNode.requests.memory",
    ]


POD = "spec.pytorchReplicaSpecs.Worker.template.spec"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            changed(
                "elastic-example-imagenet", "spec.runPolicy", {"schedulingPolicy": {"queue": "q", "priorityClass": "p"}}
            ),
            {"scheduling": {"queue": "q", "gang": "Volcano", "priorityClassName": "p"}},
            id="a queue of Volcano",
        ),
        pytest.param(
            changed(
                "pytorch-simple",
                "spec.runPolicy",
                {"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 5, "backoffLimit": 2, "suspend": True},
            ),
            {"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 5, "restart": {"maxRestarts": 2}, "suspend": True},
            id="limits",
        ),
        pytest.param(changed("pytorch-simple", "spec.nprocPerNode", "2"), {"numProcPerNode": 2}, id="processes"),
        pytest.param(changed("pytorch-simple", "spec.nprocPerNode", "auto"), {}, id="as many processes as GPUs"),
    ],
)
def test_fields_of_jobs(body: dict[str, Any], expected: dict[str, Any]):
    assert convert(body).body["spec"].items() >= expected.items()


def test_claims_are_mounted_and_other_volumes_named():
    body = changed("elastic-example-imagenet", f"{POD}.volumes", [
        {"name": "data", "persistentVolumeClaim": {"claimName": "images", "readOnly": True}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "host", "hostPath": {"path": "/mnt"}},
    ])  # fmt: skip
    mounts = [
        {"name": "data", "mountPath": "/data/", "subPath": "train"},
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "host", "mountPath": "/mnt"},
    ]
    body["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["volumeMounts"] = mounts
    made = convert(body)
    assert made.body["spec"]["container"]["mounts"] == [{"claim": "images", "mountPath": "/data", "readOnly": True}]
    lost = [lost.path.rsplit(".", 1)[1] for lost in made.lost if "volumeMounts" in lost.path]
    assert lost == ["subPath", "volumeMounts[2]"]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[list[str], str]]:
    """Keys that lead to each mapping, and its path as losses have it."""
    if isinstance(value, dict):
        yield [], path
        for key, inner in value.items():
            yield from (([key, *keys], found) for keys, found in _leaves(inner, f"{path}.{key}".lstrip(".")))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from (([str(index), *keys], found) for keys, found in _leaves(inner, f"{path}[{index}]"))


UNHEARD = "fieldOfTomorrow"
_WHOLE = (
    *("labels", "annotations", "requests", "limits", "metrics", "runtimePatches", "runtimeRef", "primaryPodLabels"),
    *("metricsCollectorSpec", "trialSpec.metadata"),
)
"""Mappings that are read, or named, as a whole."""


@pytest.mark.parametrize("name", FOREIGN)
def test_nothing_is_lost_without_a_word(name: str):
    """A field that nobody knows, put into every mapping of an example in turn, is in the list of what was lost."""
    for keys, path in _leaves(FOREIGN[name]):
        if any(part in path for part in _WHOLE) or path.endswith("metadata") or "Worker" in path:
            continue
        body = changed(name, ".".join([*keys, UNHEARD]), "x")
        assert f"{path}.{UNHEARD}".lstrip(".") in [lost.path for lost in convert(body, image=IMAGE).lost], path


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param({"apiVersion": "kubeflow.org/v1", "kind": "MPIJob"}, "kind MPIJob", id="another kind"),
        pytest.param({"apiVersion": "v1", "kind": "Job"}, "kind Job of v1", id="a kind of another group"),
        pytest.param([], "must be a mapping", id="no object"),
        pytest.param(
            changed("hyperband", "metadata.name", "x" * 43), "metadata.name must be at most 42", id="a long name"
        ),
        pytest.param(changed("hyperband", "metadata.name", None), "metadata.name must be set", id="no name"),
        pytest.param(changed("hyperband", "spec.nasConfig", {"graphConfig": {}}), "spec.nasConfig", id="architectures"),
        pytest.param(
            changed("hyperband", "spec.trialTemplate.configMap", {"name": "x"}),
            "trialTemplate.configMap",
            id="elsewhere",
        ),
        pytest.param(changed("hyperband", "spec.trialTemplate.trialSpec.kind", "MXJob"), "MXJob", id="trials of MXNet"),
        pytest.param(
            changed("hyperband", "spec.trialTemplate.primaryContainerName", "other"),
            "none is called other",
            id="container",
        ),
        pytest.param(
            changed("hyperband", "spec.parameters.0.parameterType", "float"), "parameters[0].parameterType", id="a type"
        ),
        pytest.param(
            changed("hyperband", "spec.parameters.0.feasibleSpace.max", "0.001"),
            "min must be less than max",
            id="a range",
        ),
        pytest.param(changed("hyperband", "spec.maxTrialCount", "many"), "spec.maxTrialCount", id="a number"),
        pytest.param(FOREIGN["runtime-patches-example"], "spec.trainer.image is absent", id="an image of the runtime"),
        pytest.param(changed("pytorch-simple", "spec.pytorchReplicaSpecs", {}), "Master, Worker", id="no replicas"),
    ],
)
def test_what_has_no_counterpart(body: Any, words: str):
    with pytest.raises(ConversionError) as failure:
        convert(body)
    assert words in str(failure.value)


def command(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "operator")}
    program = [sys.executable, "-m", "darkroom_api.convert", *arguments]
    return subprocess.run(program, env=environment, input=given, capture_output=True, text=True, check=False)


def test_command():
    """A file of all examples in, valid YAML out; what is lost is told twice."""
    done = command("--image", IMAGE, str(FILE))
    assert done.returncode == 0, done.stderr
    made = [body for body in yaml.safe_load_all(io.StringIO(done.stdout)) if body]
    assert made == [convert(body, image=IMAGE).body for body in FOREIGN.values()]
    for lost in (lost for body in FOREIGN.values() for lost in convert(body, image=IMAGE).lost):
        assert f"#   {lost}" in done.stdout
        assert f"not carried over: {lost}" in done.stderr


def test_command_refuses_as_a_whole():
    done = command(given=json.dumps(FOREIGN["hyperband"]) + "\n---\nkind: Pod\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("convert: kind Pod")


def test_command_on_broken_yaml():
    done = command(given="a: [")
    assert done.returncode == 1
    assert "standard input" in done.stderr


@pytest.mark.cluster
def test_an_api_server_takes_them(server: Server):
    for name, body in FOREIGN.items():
        made = convert(body, image=IMAGE).body
        answer = server.create(made | {"metadata": made["metadata"] | {"namespace": "default"}})
        assert answer.accepted, (name, answer.body)
