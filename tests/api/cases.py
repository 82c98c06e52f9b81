"""One table of specs and of updates, with the verdict on each; pydantic and the API server are both held to it.

A row is an edit of a minimal spec. `words` must stand in the message of either side; a row without them is held to the name
of the field that it edits.
"""

import contextlib
import copy
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from darkroom_api import names
from darkroom_api.crd import training_job_crd
from darkroom_api.v1alpha1.architectures import CLASSIFIERS, DETECTORS, SEGMENTERS
from darkroom_api.v1alpha1.synthetic import SyntheticSchedule
from darkroom_api.v1alpha1.transfer import TransferPolicy

Spec = dict[str, Any]

VISION: Spec = {"vision": {"data": {"claim": "flowers"}, "model": {"architecture": "resnet18"}}}
SEGMENTATION: Spec = {
    "vision": {
        "task": "Segmentation",
        "data": {"claim": "streets", "format": "MaskFolder"},
        "model": {"architecture": "lraspp_mobilenet_v3_large"},
    }
}
DETECTION: Spec = {
    "vision": {
        "task": "Detection",
        "data": {"claim": "streets", "format": "Coco"},
        "model": {"architecture": "ssdlite320_mobilenet_v3_large"},
    }
}
CONTAINER: Spec = {"container": {"image": "mine:1"}}
ABSENT = object()
SHA = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Case:
    """A TrainingJob that is created."""

    id: str
    spec: Any
    accepted: bool
    words: tuple[str, ...] = ()
    name: str = "flowers"


@dataclass(frozen=True)
class Update:
    """A TrainingJob that exists, and the spec that replaces its own; `refused` names the fields that may not change."""

    id: str
    before: Spec
    after: Spec
    refused: tuple[str, ...] = ()


def training_job(name: str, spec: Any) -> dict[str, Any]:
    """The object around a spec."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def edit(base: Any, changes: Mapping[str, Any]) -> Any:
    """A copy with the values at dotted paths replaced; ABSENT takes a field away, missing parents are made."""
    out = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = out
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is ABSENT:
            node.pop(last, None)
        else:
            node[last] = copy.deepcopy(value)
    return out


def ok(what: str, base: Spec = VISION, **changes: Any) -> Case:
    return Case(what, edit(base, _paths(changes)), accepted=True)


def no(what: str, *words: str, base: Spec = VISION, **changes: Any) -> Case:
    paths = _paths(changes)
    return Case(what, edit(base, paths), accepted=False, words=words or tuple(p.rsplit(".", 1)[-1] for p in paths))


def _paths(changes: Mapping[str, Any]) -> dict[str, Any]:
    """`vision__model__stem=...` as a path: keyword arguments have no dots."""
    return {key.replace("__", "."): value for key, value in changes.items()}


def _named(what: str, name: str, *, accepted: bool) -> Case:
    return Case(what, VISION, accepted, () if accepted else ("metadata.name",), name)


NAMES = [
    _named("name of 54", "a" * 54, accepted=True),
    _named("name of 55", "a" * 55, accepted=False),
    _named("name of one letter", "a", accepted=True),
    _named("name with hyphens and digits", "flowers-2026-11", accepted=True),
    _named("name with a dot", "flowers.v2", accepted=False),
    _named("name in upper case", "Flowers", accepted=False),
    _named("name beginning with a digit", "2flowers", accepted=False),
    _named("name beginning with a hyphen", "-flowers", accepted=False),
    _named("name ending with a hyphen", "flowers-", accepted=False),
    _named("name with an underscore", "my_flowers", accepted=False),
    _named("name with an umlaut", "blüten", accepted=False),
]

WHOLE = [
    Case("spec that is empty", {}, accepted=False, words=("exactly one of vision and container must be set",)),
    Case("spec that is null", None, accepted=False, words=("spec",)),
    Case("spec that is a list", [], accepted=False, words=("spec",)),
    Case("spec that is a word", "flowers", accepted=False, words=("spec",)),
    Case("vision and container", VISION | CONTAINER, accepted=False, words=("exactly one of vision and container",)),
    Case("vision alone", VISION, accepted=True),
    Case("container alone", CONTAINER, accepted=True),
    Case("container, and vision null", CONTAINER | {"vision": None}, accepted=True),
    Case(
        "only null", {"vision": None, "container": None}, accepted=False, words=("exactly one of vision and container",)
    ),
    no("unknown field of spec", "numNodez", numNodez=2),
    no("unknown field far below", "learning_rate", vision__optimizer__learning_rate="0.1"),
    no("unknown field that is null", "numNodez", numNodez=None),
    no("field in the wrong case", "numnodes", numnodes=2),
    no("raw pod spec", "podTemplate", podTemplate={"spec": {"hostNetwork": True}}),
    no("vision without data", vision__data=ABSENT),
    no("vision without model", vision__model=ABSENT),
    no("data without claim", "claim", vision__data={}),
    no("model without architecture", "architecture", vision__model={}),
    no("container without image", "image", container={}, base={}),
]

_ELASTIC = {"minNodes": 2, "maxNodes": 3}
_CHECKPOINT = {"claim": "runs"}
_TF_ENV = [{"name": "TF_CONFIG", "value": "{}"}]

PODS = [
    ok("one node", numNodes=1),
    ok("1000 nodes", numNodes=1000),
    no("no nodes", numNodes=0),
    no("fewer than no nodes", numNodes=-1),
    no("1001 nodes", numNodes=1001),
    no("half a node", numNodes=1.5),
    no("more nodes than fit into an int64", numNodes=10**20),
    no("nodes as a word", numNodes="2"),
    no("nodes as a truth value", numNodes=True),
    ok("nodes null: the default", numNodes=None),
    ok("elastic", elastic={"minNodes": 1, "maxNodes": 2}, checkpoint=_CHECKPOINT),
    ok("elastic: a thousand", elastic={"minNodes": 999, "maxNodes": 1000}, checkpoint=_CHECKPOINT),
    ok("elastic: null", elastic=None),
    no("elastic: nothing", "minNodes", elastic={}, checkpoint=_CHECKPOINT),
    no("elastic: no room", "minNodes must be smaller", elastic={"minNodes": 2, "maxNodes": 2}, checkpoint=_CHECKPOINT),
    no("elastic: no nodes", "minNodes", elastic={"minNodes": 0, "maxNodes": 2}, checkpoint=_CHECKPOINT),
    no("elastic: too many", "maxNodes", elastic={"minNodes": 1, "maxNodes": 1001}, checkpoint=_CHECKPOINT),
    no("elastic and numNodes", "numNodes must be absent", elastic=_ELASTIC, numNodes=2, checkpoint=_CHECKPOINT),
    no("elastic without checkpoint", "elastic needs vision and checkpoint", elastic=_ELASTIC),
    no("elastic container", "elastic needs vision", base=CONTAINER, elastic=_ELASTIC, checkpoint=_CHECKPOINT),
    no("elastic, but static", "rendezvous", elastic=_ELASTIC, rendezvous="Static", checkpoint=_CHECKPOINT),
    ok("elastic by C10d", elastic=_ELASTIC, rendezvous="C10d", checkpoint=_CHECKPOINT),
    ok("processes: Auto", numProcPerNode="Auto"),
    ok("processes: 1", numProcPerNode=1),
    ok("processes: 8", numProcPerNode=8),
    ok("processes: 64", numProcPerNode=64),
    ok("processes null: the default", numProcPerNode=None),
    no("processes: auto", numProcPerNode="auto"),
    no("processes: AUTO", numProcPerNode="AUTO"),
    no("processes: 8 as a word", numProcPerNode="8"),
    no("processes: 0", numProcPerNode=0),
    no("processes: -1", numProcPerNode=-1),
    no("processes: 65", numProcPerNode=65),
    no("processes: 1.5", numProcPerNode=1.5),
    no("processes: 2.0", numProcPerNode=2.0),
    no("processes: true", numProcPerNode=True),
    no("processes: more than an int64", numProcPerNode=2**63),
    ok("rendezvous: C10d", rendezvous="C10d"),
    ok("rendezvous: Static", rendezvous="Static"),
    no("rendezvous: etcd", rendezvous="etcd"),
    ok("profile", profile="gpu-large"),
    no("profile in upper case", profile="GPU"),
    no("profile of 64", profile="a" * 64),
    no("profile empty", profile=""),
    no("profile with a line break", profile="gpu\n"),
]


def _resources(**amounts: Any) -> Any:
    return {key.replace("__", "/"): value for key, value in amounts.items()}


RESOURCES = [
    *(
        ok(f"cpu: {amount!r}", resourcesPerNode={"cpu": amount})
        for amount in ("500m", "1", "0.5", "1.25", "1e3", 2, 0, "0", 2**63 - 1)
    ),
    *(
        ok(f"memory: {amount!r}", resourcesPerNode={"memory": amount})
        for amount in ("16Gi", "1G", "1.5Gi", "1000k", 1024)
    ),
    *(
        no(f"cpu: {amount!r}", "resourcesPerNode", resourcesPerNode={"cpu": amount})
        for amount in ("1 Gi", "-1", -1, "abc", "", "1gi", "1GiB", ".5", "1.", "1e", "1e100", "+1", " 1", "1\n", "0x10")
    ),
    *(
        no(f"cpu: {amount!r}", "resourcesPerNode", resourcesPerNode={"cpu": amount})
        for amount in (0.5, 2.0, True, 2**63, -(2**63) - 1, [], {}, "1" * 33, "٣")
    ),
    ok("cpu null: as if it were not there", resourcesPerNode={"cpu": None}),
    ok("gpu: 2", resourcesPerNode={"nvidia.com/gpu": 2}),
    ok("gpu: '2'", resourcesPerNode={"nvidia.com/gpu": "2"}),
    ok("gpu: none of the profile's", resourcesPerNode={"nvidia.com/gpu": 0}),
    *(
        no(f"gpu: {amount!r}", "resourcesPerNode", "whole numbers", resourcesPerNode={"nvidia.com/gpu": amount})
        for amount in ("0.5", "500m", "1k", "2e0")
    ),
    no("gpu: -1", "resourcesPerNode", "negative", resourcesPerNode={"nvidia.com/gpu": -1}),
    ok(
        "every kind of name",
        resourcesPerNode={"cpu": 1, "memory": 1, "ephemeral-storage": 1, "hugepages-2Mi": 1, "a.b/C_d": 1},
    ),
    *(
        no(f"resource {name[:20]!r}", "resourcesPerNode", "names of resources", resourcesPerNode={name: 1})
        for name in (
            "gpu",
            "CPU",
            "",
            "nvidia.com/",
            "/gpu",
            "a/b/c",
            "nvidia.com/gpu ",
            "NVIDIA.com/gpu",
            "hugepages-2MB",
        )
    ),
    no("resource of 64", "resourcesPerNode", "names of resources", resourcesPerNode={"a.b/" + "c" * 64: 1}),
    no(
        "resource with a domain of 254",
        "resourcesPerNode",
        "names of resources",
        resourcesPerNode={"a" * 254 + "/b": 1},
    ),
    ok("16 resources", resourcesPerNode={f"a.b/c{number}": 1 for number in range(16)}),
    no("17 resources", resourcesPerNode={f"a.b/c{number}": 1 for number in range(17)}),
    no("resources as a list", resourcesPerNode=["cpu"]),
]


def _env(*names_: str) -> list[dict[str, str]]:
    return [{"name": name, "value": "x"} for name in names_]


def _mounts(*paths: str) -> list[dict[str, str]]:
    return [{"claim": "data", "mountPath": path} for path in paths]


_OWN = (
    *(f"{prefix}X" for prefix in names.RESERVED_ENV_PREFIXES),
    *names.RESERVED_ENV_NAMES,
    names.ENV_CONFIG,
    "PET_NNODES",
)
CONTAINERS = [
    *(
        no(f"env {name}", "env", "must not set what the operator sets", base=CONTAINER, container__env=_env(name))
        for name in _OWN
    ),
    *(
        ok(f"env {name}", CONTAINER, container__env=_env(name))
        for name in ("NCCL_DEBUG", "HOME", "_", "a", "PETS", "RANKING", "MY_RANK", "rank", "darkroom_x", "A" * 128)
    ),
    *(
        no(f"env {name[:9]!r}", "container.env", "name", base=CONTAINER, container__env=_env(name))
        for name in ("", "1A", "A-B", "A B", "A=B", "A\n", "Ä", "A" * 129)
    ),
    ok("env without a value", CONTAINER, container__env=[{"name": "A"}]),
    ok("env with a null value", CONTAINER, container__env=[{"name": "A", "value": None}]),
    ok("env with any character", CONTAINER, container__env=[{"name": "A", "value": "π 🌷 \n\t\"'$(A)"}]),
    ok("env value of 4096", CONTAINER, container__env=[{"name": "A", "value": "🌷" * 4096}]),
    no("env value of 4097", "value", base=CONTAINER, container__env=[{"name": "A", "value": "x" * 4097}]),
    no("env value as a number", "value", base=CONTAINER, container__env=[{"name": "A", "value": 1}]),
    no("env without a name", "name", base=CONTAINER, container__env=[{"value": "x"}]),
    no("env from a secret", "valueFrom", base=CONTAINER, container__env=[{"name": "A", "valueFrom": {}}]),
    no("env with a null item", "env", base=CONTAINER, container__env=[None]),
    ok("env empty", CONTAINER, container__env=[]),
    ok("env null", CONTAINER, container__env=None),
    ok("64 variables", CONTAINER, container__env=_env(*(f"A{number}" for number in range(64)))),
    no("65 variables", base=CONTAINER, container__env=_env(*(f"A{number}" for number in range(65)))),
    no("a variable twice", base=CONTAINER, container__env=_env("A", "B", "A")),
    no("a variable twice, the same value", base=CONTAINER, container__env=_env("A", "A")),
    no("env as a map", base=CONTAINER, container__env={"A": "x"}),
    *(
        ok(f"image {image}", container__image=image, base={})
        for image in ("a", "registry.example:5000/a/b:1.2", "a@sha256:" + SHA, "a" * 512)
    ),
    *(
        no(f"image {image[:9]!r}", base=CONTAINER, container__image=image)
        for image in ("", " a", "a b", "a\n", "ä", "a" * 513)
    ),
    no("image as a number", base=CONTAINER, container__image=1),
    ok("command and args", CONTAINER, container__command=["torchrun", ""], container__args=["--lr=0.1", "Grüße"]),
    ok("command of 64", CONTAINER, container__command=["x"] * 64),
    no("command of 65", base=CONTAINER, container__command=["x"] * 65),
    no("command with a word of 4097", "command", base=CONTAINER, container__command=["x" * 4097]),
    no("command with a number", "command", base=CONTAINER, container__command=["sleep", 5]),
    no("command with a null", "command", base=CONTAINER, container__command=[None]),
    no("command as a word", base=CONTAINER, container__command="torchrun train.py"),
    ok("args of 128", CONTAINER, container__args=["x" * 8192] + ["x"] * 127),
    no("args of 129", base=CONTAINER, container__args=["x"] * 129),
    no("args with a word of 8193", "args", base=CONTAINER, container__args=["x" * 8193]),
    ok("launcher: None", CONTAINER, container__launcher="None"),
    ok("launcher: TensorFlow", CONTAINER, container__launcher="TensorFlow", numNodes=256, numProcPerNode=1),
    no("TensorFlow on too many nodes", base=CONTAINER, container__launcher="TensorFlow", numNodes=257),
    no("TensorFlow with two processes", base=CONTAINER, container__launcher="TensorFlow", numProcPerNode=2),
    no(
        "TensorFlow, and TF_CONFIG",
        "TF_CONFIG",
        base=CONTAINER,
        container__launcher="TensorFlow",
        container__env=_TF_ENV,
    ),
    ok("TF_CONFIG of one's own", CONTAINER, container__launcher="None", container__env=_TF_ENV),
    no("launcher: MPI", base=CONTAINER, container__launcher="MPI"),
    ok("launcher null: the default", CONTAINER, container__launcher=None),
    *(
        ok(f"mount at {path}", CONTAINER, container__mounts=_mounts(path))
        for path in (
            "/data",
            "/mnt/a/b",
            "/developer",
            "/tmpfs",
            "/darkrooms",
            "/a/dev",
            "/Grüße 🌷",
            "/a..b",
            "/" + "a" * 1023,
        )
    ),
    *(
        no(f"mount at {path}", "mountPath", base=CONTAINER, container__mounts=_mounts(path))
        for path in ("/dev", "/dev/shm", "/darkroom", "/darkroom/data", "/tmp", "/tmp/x")
    ),
    *(
        no(f"mount at {path[:12]!r}", "mountPath", base=CONTAINER, container__mounts=_mounts(path))
        for path in ("", "/", "data", "./data", "/data/", "/a//b", "/..", "/a/../b", "/./a", "/a/.", "/" + "a" * 1024)
    ),
    no("mounts at one path", "mount", base=CONTAINER, container__mounts=_mounts("/a", "/b", "/a")),
    ok("a claim mounted twice", CONTAINER, container__mounts=_mounts("/a", "/b")),
    ok("16 mounts", CONTAINER, container__mounts=_mounts(*(f"/m{number}" for number in range(16)))),
    no("17 mounts", base=CONTAINER, container__mounts=_mounts(*(f"/m{number}" for number in range(17)))),
    no("mount without a path", "mountPath", base=CONTAINER, container__mounts=[{"claim": "data"}]),
    no("mount of a host path", "hostPath", base=CONTAINER, container__mounts=[{"hostPath": "/", "mountPath": "/host"}]),
    no("privileged", "securityContext", base=CONTAINER, container__securityContext={"privileged": True}),
    no("a service account", "serviceAccountName", base=CONTAINER, serviceAccountName="admin"),
    no(
        "a Secret in the environment",
        "valueFrom",
        base=CONTAINER,
        container__env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}],
    ),
    no("the host's network", "hostNetwork", base=CONTAINER, hostNetwork=True),
]

DATA = [
    *(ok(f"claim {claim[:9]}", vision__data__claim=claim) for claim in ("a", "a.b-c.d", "0", "a" * 253)),
    *(
        no(f"claim {str(claim)[:9]!r}", vision__data__claim=claim)
        for claim in ("", "A", "a_b", "a.", ".a", "a..b", "-a", "a/b", "a\n", "ä", "a" * 254, 1)
    ),
    no("claim null", "claim", vision__data__claim=None),
    *(
        ok(f"path {path[:20]}", vision__data__path=path)
        for path in ("/", "/a", "/a/b.c/d", "/with space", "/ü🌷", "/" + "a" * 1023)
    ),
    *(
        no(f"path {path[:12]!r}", vision__data__path=path)
        for path in (
            "",
            "a",
            "a/b",
            "/a/",
            "//",
            "/a//b",
            "/..",
            "/../x",
            "/a/..",
            "/a/../b",
            "/.",
            "/.hidden",
            "/" + "a" * 1024,
        )
    ),
    no("format: COCO", vision__data__format="COCO"),
    ok("growing images", vision__schedule__resolution={"start": 128}),
    no("growing images that shrink", "resolution.start must be less", vision__schedule__resolution={"start": 224}),
    no(
        "growing images of one size",
        "for networks that take any size",
        vision__model={"architecture": "vit_b_16"},
        vision__schedule__resolution={"start": 128},
    ),
    ok("an early stop", vision__schedule__earlyStop={"patience": 3, "minDelta": "0.001", "metric": "loss"}),
    no("an early stop without patience", "patience", vision__schedule__earlyStop={"patience": 0}),
    no("an early stop by no name", "metric", vision__schedule__earlyStop={"patience": 3, "metric": "val/top1"}),
    ok("augmentation that grows", vision__augmentation__rampUp="0.5"),
    ok("a moving average now and then", vision__ema={"everySteps": 8}),
    ok("a pack by its digest", vision__data__packSha256=SHA),
    no("a digest that is none", "packSha256", vision__data__packSha256=SHA[:63]),
    ok("corrupt images: none", vision__data__maxCorruptFraction="0"),
    ok("corrupt images: all", vision__data__maxCorruptFraction="1"),
    *(
        no(f"fraction {text!r}", vision__data__maxCorruptFraction=text)
        for text in ("1.1", "2", "-0.1", ".1", "0.", "1e-3", "", "0,1", "NaN", "0.0000000001", 0, 0.5, True)
    ),
    ok("split: defaults", vision__data__split={}),
    ok("split null: none", vision__data__split=None),
    ok("split: all of it", vision__data__split={"train": "0.7", "val": "0.2", "test": "0.1"}),
    ok("split: less than all", vision__data__split={"train": "0.1", "val": "0.1", "test": "0"}),
    ok("split: tenths that are not exact", vision__data__split={"train": "0.3", "val": "0.6", "test": "0.1"}),
    no(
        "split: more than all",
        "add up to more than 1",
        vision__data__split={"train": "0.9", "val": "0.1", "test": "0.1"},
    ),
    no("split: more with the defaults", "add up to more than 1", vision__data__split={"train": "0.9"}),
    no(
        "split: a little more than all", "add up", vision__data__split={"train": "0.8", "val": "0.1", "test": "0.10001"}
    ),
    no("split: nothing to train on", "greater than 0", vision__data__split={"train": "0"}),
    no("split: nothing to train on, in decimals", "greater than 0", vision__data__split={"train": "0.000"}),
    no("split: nothing to choose by", "greater than 0", vision__data__split={"val": "0"}),
    no("split: seed -1", vision__data__split__seed=-1),
    no("split: a YAML float", vision__data__split__train=0.8),
]


def _sizes() -> Iterator[Case]:
    """For one architecture of each need: its smallest size, one less, and one beside the multiple."""
    groups = {(needs.min_size, needs.multiple_of): name for name, needs in sorted(CLASSIFIERS.items(), reverse=True)}
    for (smallest, multiple), name in sorted(groups.items()):
        sizes = {smallest: True, smallest - multiple: False, smallest + multiple: True}
        if multiple > 1:
            sizes[smallest + 1] = False
        for size, accepted in sizes.items():
            case = ok if accepted else lambda what, **changes: no(what, "imageSize", **changes)
            yield case(f"{name} at {size} px", vision__model__architecture=name, vision__imageSize=size)


MODEL = [
    *(
        ok(f"architecture {name}", vision__model__architecture=name, vision__imageSize=224)
        for name in sorted(CLASSIFIERS)
    ),
    *(
        no(f"architecture {name!r}", vision__model__architecture=name)
        for name in ("resnet9", "ResNet50", "resnet50 ", "", "yolov8", "resnet50\n", 50, None)
    ),
    *_sizes(),
    no("image of 0 px", vision__imageSize=0),
    no("image of 2049 px", vision__imageSize=2049),
    no("vit_b_16 at 225 px", "imageSize", vision__model__architecture="vit_b_16", vision__imageSize=225),
    no("vit_h_14 at 224 px and a bit", "imageSize", vision__model__architecture="vit_h_14", vision__imageSize=230),
    no("maxvit at 256 px", "imageSize", vision__model__architecture="maxvit_t", vision__imageSize=256),
    *(
        ok(f"small stem on {name}", vision__model={"architecture": name, "stem": "SmallImage"})
        for name, needs in CLASSIFIERS.items()
        if needs.family == "ResNet"
    ),
    *(
        no(f"small stem on {name}", "stem", vision__model={"architecture": name, "stem": "SmallImage"})
        for name, needs in CLASSIFIERS.items()
        if needs.family != "ResNet"
    ),
    ok("weights", vision__model__weights={"claim": "weights", "path": "/resnet18.safetensors", "sha256": SHA}),
    ok("weights without a digest", vision__model__weights={"claim": "weights", "path": "/resnet18.pth"}),
    ok("weights by name", vision__model__weights={"claim": "hub", "name": "ResNet18_Weights.IMAGENET1K_V1"}),
    ok(
        "the default weights, if they are there",
        vision__model__weights={"claim": "hub", "name": "Default", "missing": "Scratch"},
    ),
    no(
        "weights that may be anything",
        "missing",
        vision__model__weights={"claim": "w", "path": "/w", "missing": "Skip"},
    ),
    ok("what is measured", vision__measure=["ImageSize", "Normalization", "Stem"]),
    no("what cannot be measured", "measure", vision__measure=["Classes"]),
    no("measured boxes", "measure is for Classification", base=DETECTION, vision__measure=["Normalization"]),
    no("weights without a path", "exactly one of path and name", vision__model__weights={"claim": "weights"}),
    no(
        "weights by path and by name",
        "exactly one of path and name",
        vision__model__weights={"claim": "w", "path": "/w.pt", "name": "ResNet18_Weights.DEFAULT"},
    ),
    *(
        no(f"weights named {name!r}", "name", vision__model__weights={"claim": "w", "name": name})
        for name in (
            "",
            "resnet18",
            "ResNet18_Weights.",
            ".DEFAULT",
            "ResNet18_Weights.default",
            "A.B.C",
            "A_Weights.V1\n",
        )
    ),
    no(
        "weights from the network",
        "path",
        vision__model__weights={"claim": "weights", "path": "https://example.com/a.pt"},
    ),
    *(
        no(f"digest {what}", "sha256", vision__model__weights={"claim": "w", "path": "/w", "sha256": digest})
        for what, digest in {
            "empty": "",
            "of 63": SHA[:-1],
            "of 65": SHA + "0",
            "in upper case": SHA.upper(),
            "with its algorithm": "sha256:" + SHA[:57],
            "with a letter that is not hex": "g" * 64,
            "with a line break": SHA[:-1] + "\n",
        }.items()
    ),
]

_PRETRAINED = {"vision__model__weights": {"claim": "w", "path": "/w.pt"}}
_CACHED = _PRETRAINED | {"vision__transfer__cacheFeatures": {}}

_MOVED = {"rotation": "15", "translation": "0.1", "scaling": "0.2", "color": {"hue": "0.05"}}
_FRACTALS = {"source": "Fractals", "schedule": "Pretrain"}
_SCENES = [
    *((field, value) for field in ("texture", "light", "occlusion") for value in ("0", "1")),
    ("perspective", "0.49"),
    ("blur", "0"),
    ("noise", "80"),
    ("minObjects", 3),
    ("maxObjects", 20),
    ("minSize", "0.56"),
    ("maxSize", "1"),
]
_NO_SCENES = [
    *((field, "1.1") for field in ("texture", "light", "occlusion", "minSize", "maxSize")),
    *((field, 1) for field in ("texture", "light", "blur", "noise")),
    ("perspective", "0.5"),
    ("blur", "-1"),
    ("minObjects", 0),
    ("minObjects", 4),
    ("maxObjects", 21),
    ("minSize", "0"),
    ("minSize", "0.6"),
]

WRONG_NETWORK = "must be a network for the task"
WRONG_FORMAT = "must be one that the task learns from"

TASKS = [
    *(
        ok(f"segmentation by {name}", base=SEGMENTATION, vision__model__architecture=name)
        for name in sorted(SEGMENTERS)
    ),
    *(
        ok(f"detection by {name}", base=DETECTION, vision__model__architecture=name, vision__imageSize=300)
        for name in sorted(DETECTORS)
    ),
    ok("segmentation from VOC", base=SEGMENTATION, vision__data__format="Voc"),
    ok("detection from VOC", base=DETECTION, vision__data__format="Voc"),
    no("pose estimation", "task", vision__task="Pose"),
    *(
        no(f"{name} for Classification", WRONG_NETWORK, vision__model__architecture=name, vision__imageSize=300)
        for name in sorted(SEGMENTERS | DETECTORS)
    ),
    no(
        "a detector for Segmentation", WRONG_NETWORK, base=SEGMENTATION, vision__model__architecture="fcos_resnet50_fpn"
    ),
    no("a segmenter for Detection", WRONG_NETWORK, base=DETECTION, vision__model__architecture="fcn_resnet50"),
    *(
        no(f"resnet18 for {base['vision']['task']}", WRONG_NETWORK, base=base, vision__model__architecture="resnet18")
        for base in (SEGMENTATION, DETECTION)
    ),
    *(
        no(
            f"{format_} for {base['vision'].get('task', 'Classification')}",
            WRONG_FORMAT,
            base=base,
            vision__data__format=format_,
        )
        for base, formats in (
            (VISION, ("MaskFolder", "Voc", "Coco")),
            (SEGMENTATION, ("ImageFolder", "Coco")),
            (DETECTION, ("ImageFolder", "MaskFolder")),
        )
        for format_ in formats
    ),
    no("segmentation from the default format", WRONG_FORMAT, base=SEGMENTATION, vision__data={"claim": "streets"}),
    ok("a mask folder divided", base=SEGMENTATION, vision__data__split={"train": "0.7"}),
    *(
        no(
            f"{base['vision']['task']} from a divided {name}",
            "split",
            base=base,
            vision__data__split={},
            vision__data__format=name,
        )
        for base, name in ((SEGMENTATION, "Voc"), (DETECTION, "Voc"), (DETECTION, "Coco"))
    ),
    no("ssd300_vgg16 at 224 px", "imageSize", base=DETECTION, vision__model__architecture="ssd300_vgg16"),
    no(
        "ssd300_vgg16 at 301 px",
        "imageSize",
        base=DETECTION,
        vision__model__architecture="ssd300_vgg16",
        vision__imageSize=301,
    ),
    ok("a detector at 32 px", base=DETECTION, vision__imageSize=32),
    no("a detector at 31 px", "imageSize", base=DETECTION, vision__imageSize=31),
    *(
        no(
            f"{field} for {base['vision']['task']}",
            "are for Classification",
            base=base,
            vision__augmentation={field: value},
        )
        for base in (SEGMENTATION, DETECTION)
        for field, value in (("mixup", "0.2"), ("cutmix", "1"), ("randAugment", {}))
    ),
    ok("segmentation with smooth labels", base=SEGMENTATION, vision__schedule__labelSmoothing="0.1"),
    no("detection with smooth labels", "labelSmoothing", base=DETECTION, vision__schedule__labelSmoothing="0.1"),
    no(
        "a small stem under a segmentation network",
        "stem",
        base=SEGMENTATION,
        vision__model={"architecture": "fcn_resnet50", "stem": "SmallImage"},
    ),
    *(
        ok(
            f"transfer in {base['vision']['task']}",
            base=base,
            vision__model__weights={"claim": "w", "path": "/w.pth"},
            vision__transfer={"policy": "LastStages", "stages": 3, "batchNorm": "Frozen"},
        )
        for base in (SEGMENTATION, DETECTION)
    ),
    *(
        no(
            f"cached features in {base['vision']['task']}",
            "cacheFeatures is for Classification",
            base=base,
            vision__model__weights={"claim": "w", "path": "/w.pth"},
            vision__transfer={"policy": "Head", "cacheFeatures": {}},
        )
        for base in (SEGMENTATION, DETECTION)
    ),
]

TRANSFER = [
    *(ok(f"transfer: {policy}", vision__transfer__policy=policy, **_PRETRAINED) for policy in TransferPolicy),
    ok("transfer: defaults", vision__transfer={}, **_PRETRAINED),
    no("transfer: Tail", "policy", vision__transfer__policy="Tail", **_PRETRAINED),
    no("transfer without weights", "needs model.weights", vision__transfer={}),
    ok("transfer None without weights", vision__transfer={"policy": "None", "layerDecay": "0.8"}),
    no("LastStages: no stage", "stages", vision__transfer__stages=0, **_PRETRAINED),
    no("LastStages: too many", "stages", vision__transfer__stages=65, **_PRETRAINED),
    no("phase of no epochs", "phaseEpochs", vision__transfer__phaseEpochs=0, **_PRETRAINED),
    ok("the head for all but one epoch", vision__transfer__phaseEpochs=29, **_PRETRAINED),
    no("the head for all epochs", "less than schedule.epochs", vision__transfer__phaseEpochs=30, **_PRETRAINED),
    ok("gradual, longer than the run", vision__transfer={"policy": "Gradual", "phaseEpochs": 30}, **_PRETRAINED),
    ok("layer decay: none", vision__transfer__layerDecay="1", **_PRETRAINED),
    no("layer decay above 1", "layerDecay", vision__transfer__layerDecay="1.1", **_PRETRAINED),
    no("batch norm: Eval", "batchNorm", vision__transfer__batchNorm="Eval", **_PRETRAINED),
    ok("cached features", **_CACHED),
    ok("cached features of 64 views", **_CACHED, vision__transfer__cacheFeatures__views=64),
    ok("cached features in a claim", **_CACHED, vision__transfer__cacheFeatures__claim="features"),
    no("cached features of 0 views", "views", **_CACHED, vision__transfer__cacheFeatures__views=0),
    no("cached features of 65 views", "views", **_CACHED, vision__transfer__cacheFeatures__views=65),
    no("cached features, nothing frozen", "policy that freezes", **_CACHED, vision__transfer__policy="None"),
    no("cached features that change", "must not be Adapt", **_CACHED, vision__transfer__batchNorm="Adapt"),
    no("cached features, MixUp", "mixup and cutmix must be 0", **_CACHED, vision__augmentation__mixup="0.2"),
    no("cached features, CutMix", "mixup and cutmix must be 0", **_CACHED, vision__augmentation__cutmix="1"),
    ok("cached features, no MixUp in decimals", **_CACHED, vision__augmentation__mixup="0.0"),
]

SYNTHETIC = [
    *(
        ok(
            f"scenes in {base['vision'].get('task', 'Classification')}",
            base=base,
            vision__synthetic={"source": "Scenes"},
        )
        for base in (VISION, SEGMENTATION, DETECTION)
    ),
    no("synthetic images of no source", "source", vision__synthetic={}),
    no("synthetic images from Photos", "source", vision__synthetic={"source": "Photos"}),
    *(
        ok(f"synthetic images: {name}", vision__synthetic={"source": "Scenes", "schedule": name, "ratio": "0.75"})
        for name in SyntheticSchedule
    ),
    no("synthetic images: Curriculum", "schedule", vision__synthetic={"source": "Scenes", "schedule": "Curriculum"}),
    ok("synthetic images alone", vision__synthetic={"source": "Scenes", "ratio": "1"}),
    no("no synthetic images", "ratio must be greater than 0", vision__synthetic={"source": "Scenes", "ratio": "0.0"}),
    no("more synthetic images than all", "ratio", vision__synthetic={"source": "Scenes", "ratio": "1.5"}),
    no("three times as many as a number", "ratio", vision__synthetic={"source": "Scenes", "ratio": 3}),
    ok("scenes of some classes", vision__synthetic={"source": "Scenes", "scenes": {"classes": ["star", "dog"]}}),
    no("scenes of no class", "classes", vision__synthetic={"source": "Scenes", "scenes": {"classes": []}}),
    no(
        "scenes of 7 classes", "classes", vision__synthetic={"source": "Scenes", "scenes": {"classes": list("abcdefg")}}
    ),
    *(
        ok(f"scenes: {field} {value!r}", vision__synthetic={"source": "Scenes", "scenes": {field: value}})
        for field, value in _SCENES
    ),
    *(
        no(f"scenes: {field} {value!r}", field, vision__synthetic={"source": "Scenes", "scenes": {field: value}})
        for field, value in _NO_SCENES
    ),
    ok("a gate that measures", vision__synthetic={"source": "Scenes", "gate": {}}),
    ok(
        "a gate with thresholds",
        base=DETECTION,
        vision__synthetic={"source": "Scenes", "gate": {"maxKid": "0.05", "maxAuc": "0.9", "minTstrRatio": "0.7"}},
    ),
    *(
        no(f"a gate: {field} {value!r}", field, vision__synthetic={"source": "Scenes", "gate": {field: value}})
        for field, value in (
            ("images", 15),
            ("images", 2049),
            ("maxKid", "-1"),
            ("maxAuc", "1.1"),
            ("minTstrRatio", 0.7),
        )
    ),
    no("a gate for fractals", "gate compares", vision__synthetic=_FRACTALS | {"gate": {}}),
    ok("fractals", vision__synthetic=_FRACTALS),
    ok("4096 fractals", vision__synthetic=_FRACTALS | {"fractals": {"classes": 4096}}),
    no("one fractal", "classes", vision__synthetic=_FRACTALS | {"fractals": {"classes": 1}}),
    no("fractals among photographs", "need schedule Pretrain", vision__synthetic={"source": "Fractals"}),
    no("fractals with knobs of scenes", "scenes is for source", vision__synthetic=_FRACTALS | {"scenes": {}}),
    no("scenes with fractals", "fractals is for source", vision__synthetic={"source": "Scenes", "fractals": {}}),
    no("fractals with boxes", "pretrains a Classification", base=DETECTION, vision__synthetic=_FRACTALS),
    no("fractals on weights", "transfer or model.weights", **_PRETRAINED, vision__synthetic=_FRACTALS),
    no("fractals on frozen stages", "transfer", **_PRETRAINED, vision__transfer={}, vision__synthetic=_FRACTALS),
    no(
        "synthetic images of which features are kept",
        "does not go with synthetic",
        **_CACHED,
        vision__synthetic__source="Scenes",
    ),
]

AUGMENTATION = [
    *(
        ok(f"augmentation in {base['vision'].get('task', 'Classification')}", base=base, vision__augmentation=_MOVED)
        for base in (VISION, SEGMENTATION, DETECTION)
    ),
    ok("rotation all round", vision__augmentation__rotation="180"),
    no("rotation beyond that", "rotation", vision__augmentation__rotation="180.5"),
    no("rotation in floats", "rotation", vision__augmentation__rotation=30),
    no("translation of more than the image", "translation", vision__augmentation__translation="1.1"),
    no("scaling to nothing", "scaling", vision__augmentation__scaling="0.95"),
    no("hue beyond half of the circle", "hue", vision__augmentation__color={"hue": "0.6"}),
    no("colour jitter as a number", "color", vision__augmentation__color="0.4"),
    ok("copy-paste of masks", base=SEGMENTATION, vision__augmentation__copyPaste="0.5"),
    ok("copy-paste of COCO's objects", base=DETECTION, vision__augmentation__copyPaste="1"),
    no(
        "copy-paste of boxes",
        "needs masks",
        base=DETECTION,
        vision__data__format="Voc",
        vision__augmentation__copyPaste="1",
    ),
    no("copy-paste of images", "needs masks", vision__augmentation__copyPaste="0.5"),
]

RECIPE = [
    *(ok(f"compress: {name}", vision__parallelism__compress=name) for name in ("None", "BF16", "FP16")),
    no("compress: INT8", "compress", vision__parallelism__compress="INT8"),
    ok("FSDP", vision__parallelism={"strategy": "FSDP", "compress": "BF16"}, vision__precision="BFloat16"),
    ok(
        "pipeline",
        vision__parallelism={"strategy": "Pipeline", "stages": 4, "schedule": "GPipe"},
        vision__microBatchSize=8,
    ),
    no("pipeline of one", "stages", vision__parallelism={"strategy": "Pipeline", "stages": 1}),
    no("pipeline of 17", "stages", vision__parallelism={"strategy": "Pipeline", "stages": 17}),
    no("schedule: DualPipe", "schedule", vision__parallelism__schedule="DualPipe"),
    no(
        "pipeline of a network that branches",
        "one chain",
        vision__parallelism__strategy="Pipeline",
        vision__model__architecture="googlenet",
    ),
    no("pipeline, frozen", "one chain", **_PRETRAINED, vision__transfer={}, vision__parallelism__strategy="Pipeline"),
    no(
        "pipeline of growing images",
        "must be DDP or FSDP",
        vision__parallelism__strategy="Pipeline",
        vision__schedule__resolution={"start": 128},
    ),
    no("pipeline, uneven", "of one size", vision__parallelism__strategy="Pipeline", vision__microBatchSize=9),
    no("strategy: Tensor", "strategy", vision__parallelism__strategy="Tensor"),
    no("FSDP of float16", "need precision", vision__parallelism__strategy="FSDP", vision__precision="Float16"),
    no("FSDP of cached features", "must be DDP", **_CACHED, vision__parallelism__strategy="FSDP"),
    *(
        no(f"FSDP of a {base['vision']['task']}", "for Classification", base=base, vision__parallelism__strategy="FSDP")
        for base in (SEGMENTATION, DETECTION)
    ),
    no("task: Captioning", vision__task="Captioning"),
    no("optimizer: Lion", "name", vision__optimizer__name="Lion"),
    no("decay: Exponential", vision__schedule__decay="Exponential"),
    no("precision: FP8", vision__precision="FP8"),
    no("precision in lower case", vision__precision="auto"),
    *(
        ok(f"decimal {text!r}", vision__optimizer__learningRate=text)
        for text in ("0.1", "1e-3", "0", "10", "3.5e2", "1e10", "123456789.123456789", "007")
    ),
    *(
        no(f"decimal {text!r}", vision__optimizer__learningRate=text)
        for text in (
            "-0.1",
            "+1",
            ".1",
            "1.",
            "1E-3",
            "1e-",
            "1e100",
            "0x1",
            "inf",
            "nan",
            "",
            " 1",
            "1\n",
            "1234567890",
            "1_0",
            "٣",
        )
    ),
    *(
        no(f"decimal as YAML float {value!r}", vision__optimizer__learningRate=value)
        for value in (0.1, 1, True, [], {})
    ),
    no("clip norm as a YAML float", vision__optimizer__clipNorm=1.0),
    no("momentum above 1", vision__optimizer__momentum="1.1"),
    no("warm-up as a number", vision__schedule__warmupEpochs=5),
    no("epochs: 0", vision__schedule__epochs=0),
    no("epochs: 10001", vision__schedule__epochs=10001),
    no("mixup as a number", vision__augmentation__mixup=0.2),
    no("negative cutmix", vision__augmentation__cutmix="-1"),
    ok("RandAugment with its defaults", vision__augmentation__randAugment={}),
    no("RandAugment of 9 operations", vision__augmentation__randAugment__operations=9),
    no("RandAugment of strength 31", vision__augmentation__randAugment__magnitude=31),
    ok("moving average with its defaults", vision__ema={}),
    no("moving average as a truth value", vision__ema=True),
    ok("grey images", vision__normalization={"mean": ["0.5"] * 3, "std": ["0.25"] * 3}),
    no("normalization of 1 channel", "mean", vision__normalization__mean=["0.5"]),
    no("normalization of 4 channels", "std", vision__normalization__std=["0.5"] * 4),
    no(
        "normalization that divides by zero",
        "std must be greater than 0",
        vision__normalization__std=["0.2", "0e9", "0.2"],
    ),
    no("normalization in floats", "mean", vision__normalization__mean=[0.5, 0.5, 0.5]),
    ok("micro batch as large as the batch", vision__batchSize=32, vision__microBatchSize=32),
    no("micro batch larger than the batch", "microBatchSize", vision__batchSize=32, vision__microBatchSize=33),
    no("micro batch larger than the default batch", vision__microBatchSize=65),
    *(ok(f"workers: {workers!r}", vision__workers=workers) for workers in ("Auto", 0, 64, None)),
    *(
        no(f"workers: {workers!r}", vision__workers=workers)
        for workers in ("auto", "4", "", -1, 65, 1.5, 4.0, True, 2**63)
    ),
    no("seed: -1", vision__seed=-1),
    ok("seed: the largest", vision__seed=2147483647),
    no("seed: one more", vision__seed=2147483648),
    no("deterministic as a word", vision__deterministic="true"),
    no("deterministic as a number", vision__deterministic=1),
    ok("summary", vision__summary={"html": False, "tensorBoard": True}),
    no("summary: unknown", "pdf", vision__summary={"pdf": True}),
]

_ACTIONS = ("Restart", "RestartForFree", "Fail")


def _rule(action: str = "Fail", **fields: Any) -> dict[str, Any]:
    return fields | {"action": action}


TARGET = {"metric": "val/top1", "value": "0.93"}

LIFE = [
    *(ok(f"suspend: {value}", suspend=value) for value in (True, False, None)),
    *(no(f"suspend: {value!r}", suspend=value) for value in ("true", "yes", 1, 0, "")),
    ok("deadline: a year", activeDeadlineSeconds=31536000),
    *(no(f"deadline: {value!r}", activeDeadlineSeconds=value) for value in (0, -1, 31536001, "1h", 1.5)),
    ok("managed by this operator", managedBy="darkroom.dev/operator"),
    ok("managed by another", managedBy="kueue.x-k8s.io/multikueue"),
    ok("managedBy: 63", managedBy="a.io/" + "b" * 58),
    *(
        no(f"managedBy: {value!r}", managedBy=value)
        for value in ("", "kueue", "/kueue", "kueue/", "Kueue.io/a", "a b/c", "a..b/c", "a.io/" + "b" * 59)
    ),
    ok("scheduling: nothing", scheduling={}),
    ok("scheduling: null", scheduling=None),
    ok("priority class", scheduling__priorityClassName="training.urgent"),
    no("priority class: in upper case", scheduling__priorityClassName="High"),
    no("priority class: empty", scheduling__priorityClassName=""),
    ok("queue", scheduling__queue="vision"),
    ok("queue of Volcano", scheduling__queue="vision", scheduling__gang="Volcano"),
    no("queue without a scheduler that has some", "queue needs", scheduling__queue="vision", scheduling__gang="Native"),
    no("queue: in upper case", scheduling__queue="Vision"),
    ok("gang: none", scheduling__gang="None"),
    no("gang: unknown", scheduling__gang="Slurm"),
    no("gang Kueue without a queue", "gang Kueue needs a queue", scheduling__gang="Kueue"),
    ok("priority in a queue", scheduling__queue="vision", scheduling__workloadPriorityClassName="urgent"),
    no(
        "priority without a queue",
        "workloadPriorityClassName is Kueue's",
        scheduling__workloadPriorityClassName="urgent",
    ),
    ok("topology", scheduling__queue="vision", scheduling__topology={"key": "topology.kubernetes.io/zone"}),
    ok("topology: preferred", scheduling__queue="vision", scheduling__topology={"key": "rack", "mode": "Preferred"}),
    no("topology without a queue", "topology is Kueue's", scheduling__topology={"key": "rack"}),
    no("topology: not a label", "key", scheduling__queue="vision", scheduling__topology={"key": "a b"}),
    ok("startup deadline: a minute", startupDeadlineSeconds=60),
    *(no(f"startup deadline: {value!r}", startupDeadlineSeconds=value) for value in (0, -1, 31536001, "1m", 1.5)),
    ok("stall: ten seconds", stallSeconds=10),
    ok("stall: null", stallSeconds=None),
    *(no(f"stall: {value!r}", stallSeconds=value) for value in (0, 9, -1, 31536001, "10m", 10.5)),
    ok("budget: everything", budget={"maxDuration": "1h30m", "maxCost": "25", "maxGpuHours": "1e2", "target": TARGET}),
    ok("budget: a loss", budget__target=TARGET | {"metric": "val/loss", "direction": "Minimize"}),
    ok("budget: null", budget=None),
    no("budget: nothing", budget={}),
    no("budget: unknown limit", budget={"maxEuros": "3"}),
    *(ok(f"maxDuration: {value}", budget__maxDuration=value) for value in ("1s", "0h1m", "999999h")),
    *(
        no(f"maxDuration: {value!r}", budget__maxDuration=value)
        for value in ("", "0s", "0h00m", "2", "1d", "1m1h", "1.5h", "-1h", " 1h", 3600)
    ),
    *(no(f"maxCost: {value!r}", budget__maxCost=value) for value in ("0", "0.000", "-1", "ten", 10, "1e999")),
    *(no(f"maxGpuHours: {value!r}", budget__maxGpuHours=value) for value in ("0", "0e5", ".5")),
    no("target: no value", budget__target={"metric": "val/top1"}),
    no("target: no metric", budget__target={"value": "0.9"}),
    no("target: a percentage", budget__target=TARGET | {"value": "93%"}),
    no("target: direction", budget__target=TARGET | {"direction": "Up"}),
    ok("TTL: at once", ttlSecondsAfterFinished=0),
    *(no(f"TTL: {value!r}", ttlSecondsAfterFinished=value) for value in (-1, 31536001, "0")),
    ok("restarts: none", restart__maxRestarts=0),
    no("restarts: 101", restart__maxRestarts=101),
    no("restarts: -1", restart__maxRestarts=-1),
    no("back-off: 3601", restart__backoffSeconds=3601),
    ok("back-off: as long as its bound", restart__backoffSeconds=900, restart__maxBackoffSeconds=900),
    no("back-off: longer than its bound", "backoffSeconds must not be larger", restart__backoffSeconds=601),
    no("back-off: its bound lower than the default", "backoffSeconds", restart__maxBackoffSeconds=9),
    ok("rules: none", restart__rules=[]),
    ok("rules: each action", restart__rules=[_rule(action, exitCodes=[1, 255]) for action in _ACTIONS]),
    ok("rules: by reason", restart__rules=[_rule(reasons=["OutOfMemory", "SoftwareError"])]),
    ok("rules: twice the same", restart__rules=[_rule(exitCodes=[3, 3])] * 2),
    ok("rules: 20", restart__rules=[_rule(exitCodes=[3])] * 20),
    no("rules: 21", restart__rules=[_rule(exitCodes=[3])] * 21),
    no("rules: exit code 0", "exitCodes", restart__rules=[_rule(exitCodes=[3, 0])]),
    no("rules: no exit codes", "exitCodes", restart__rules=[_rule(exitCodes=[])]),
    no("rules: no reasons", "reasons", restart__rules=[_rule(reasons=[])]),
    no("rules: no action", "action", restart__rules=[{"exitCodes": [3]}]),
    no("rules: a reason of success", "reasons", restart__rules=[_rule(reasons=["Completed"])]),
    no("rules: neither", "exactly one of exitCodes and reasons", restart__rules=[_rule()]),
    no(
        "rules: both", "exactly one of exitCodes and reasons", restart__rules=[_rule(exitCodes=[3], reasons=["Killed"])]
    ),
    ok("restart null: the default", restart=None),
    ok("checkpoint", checkpoint={"claim": "runs"}),
    no("checkpoint without a claim", "claim", checkpoint={}),
    no("checkpoint: path with ..", "path", checkpoint={"claim": "runs", "path": "/../other"}),
    no("checkpoint: every 0 seconds", "everySeconds", checkpoint={"claim": "runs", "everySeconds": 0}),
    no("checkpoint: keep none", "keep", checkpoint={"claim": "runs", "keep": 0}),
]

WRITTEN = [
    *NAMES,
    *WHOLE,
    *PODS,
    *RESOURCES,
    *CONTAINERS,
    *DATA,
    *MODEL,
    *TASKS,
    *TRANSFER,
    *SYNTHETIC,
    *AUGMENTATION,
    *RECIPE,
    *LIFE,
]


# --- Rows from the schema itself: no bound goes untested because nobody thought of it. ---

SCHEMA = training_job_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
_FULL = edit(
    VISION,
    {
        "vision.data.split": {},
        "vision.model.weights": {"claim": "weights", "path": "/w.pt"},
        "vision.augmentation.randAugment": {},
        "vision.ema": {},
        "checkpoint": {"claim": "runs"},
        "scheduling": {},
        "restart.rules": [_rule(exitCodes=[3])],
    },
)
_BASES = {
    "container": edit(CONTAINER, {"container.env": [{"name": "A"}], "container.mounts": _mounts("/a")}),
}
_WRONG = {"string": 1, "integer": "1", "boolean": "true", "array": {}, "object": []}


def _from_schema() -> Iterator[Case]:
    for path, field in leaves(SCHEMA["spec"]):
        for what, value in _offences(field):
            base = _BASES.get(path.split(".", 1)[0], _FULL)
            yield Case(f"{path}: {what}", _set(base, path, value), accepted=False, words=(_name(path),))


def leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every property below a schema with its path; `[]` stands for the items of a list, `{}` for the values of a map."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}{name}", field
        yield from leaves(field, f"{path}{name}.")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield f"{path.rstrip('.')}{suffix}", schema[key]
            yield from leaves(schema[key], f"{path.rstrip('.')}{suffix}.")


def _offences(field: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the schema of one field forbids."""
    if "type" in field:
        yield f"not of type {field['type']}", _WRONG[field["type"]]
    if field.get("type") == "object" and "properties" in field:
        yield "unknown field", {"bogus": 1}
    if "minimum" in field:
        yield "below the minimum", field["minimum"] - 1
    if "maximum" in field:
        yield "above the maximum", field["maximum"] + 1
    if "maxLength" in field:
        yield "too long", "0" * (field["maxLength"] + 1)
    if "enum" in field:
        yield "not a choice", field["enum"][0] + "x"
    if "pattern" in field:
        yield "not of the pattern", "\n"


def _set(base: Spec, path: str, value: Any) -> Spec:
    """A copy with the value at a path of `leaves`."""
    out = copy.deepcopy(base)
    node: Any = out
    steps: list[Any] = []
    for part in path.split("."):
        name = part.removesuffix("[]").removesuffix("{}")
        steps += [name, *([0] if part.endswith("[]") else ["cpu"] if part.endswith("{}") else [])]
    for step, after in itertools.pairwise(steps):
        empty: Any = ["0.5"] * 3 if after == 0 else {}
        node = node.setdefault(step, empty) if isinstance(node, dict) else node[step]
    node[steps[-1]] = value
    return out


def _name(path: str) -> str:
    return path.rsplit(".", 1)[-1].removesuffix("[]").removesuffix("{}")


CASES = [*WRITTEN, *_from_schema()]


# --- Samples: what users copy. ---

SAMPLES = Path(__file__).resolve().parents[2] / "deploy/samples"


def samples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every TrainingJob in the samples, with the name of its file."""
    yield from samples_of("TrainingJob")


def samples_of(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a kind in the samples, with the name of its file."""
    for file in sorted(SAMPLES.glob("*.yaml")):
        for body in yaml.safe_load_all(file.read_text()):
            if body and body["kind"] == kind:
                yield file.name, body


# --- Specs that nobody would write: up to three fields of a good one replaced by something. ---

_SOMETHING = (
    *(None, True, False, -1, 0, 1, 2, 16, 48, 64, 65, 224, 225, 1.5, 10**12, 2**31, 2**63, [], {}, [None], [{}], ["a"]),
    *(
        "",
        "0",
        "00",
        "1",
        "0.5",
        "1.0",
        "0.000000000",
        "1e-3",
        "1E3",
        "1e400",
        "+1",
        " 1",
        "1_000",
        "\uff11",
        "²",
        "1" * 30,
    ),
    *("a", "A", "a.b", "a\n", "\n", "\0", "ü", "\u2028", "\ufeff", "🌷" * 600, "/", "/a", "/a/b", "/a/../b"),
    *("Auto", "auto", "SmallImage", "resnet50", "vgg16", "vit_b_32", "inception_v3", ["0.5"] * 3, ["1", "1", "0"]),
    *([{"name": "A"}], [{"name": "A"}, {"name": "A"}], [{"name": "RANK"}], _mounts("/x"), _mounts("/dev")),
    *({"cpu": 1}, {"cpu": None}, {"cpu": "1"}, {"nvidia.com/gpu": "1e0"}, {"claim": "a"}, {"architecture": "vgg16"}),
)


def strange_specs(count: int, seed: int) -> Iterator[Spec]:
    """The same ones for the same seed."""
    rng = random.Random(seed)
    paths = [path for path, _ in leaves(SCHEMA["spec"])]
    while count:
        spec = rng.choice([VISION, CONTAINER, _FULL, _BASES["container"]])
        with contextlib.suppress(
            TypeError, IndexError, KeyError, AttributeError
        ):  # a field below something else by now
            for _ in range(rng.randint(1, 3)):
                spec = _set(spec, rng.choice(paths), rng.choice(_SOMETHING))
            yield spec
            count -= 1


# --- Status: one with every field, and what its schema forbids. ---

_MOMENT = "2026-11-24T20:02:03Z"
STATUS: dict[str, Any] = {
    "observedGeneration": 3,
    "conditions": [
        {
            "type": kind,
            "status": "False",
            "observedGeneration": 3,
            "lastTransitionTime": _MOMENT,
            "reason": names.REASON_RUNNING,
            "message": "2 of 2 pods run 🌷",
        }
        for kind in names.CONDITION_TYPES
    ],
    "state": "Running",
    "finished": False,
    "nodes": "2/2",
    "startTime": _MOMENT,
    "completionTime": "2026-11-24T20:02:03.123456Z",
    "attempt": 2,
    "restarts": 1,
    "disruptions": 0,
    "activeSeconds": 3600,
    "attempts": [
        {
            "number": 1,
            "job": "flowers-1",
            "uid": "0123-4567",
            "startTime": _MOMENT,
            "gang": "Kueue",
            "queue": "vision",
            "podGroup": "flowers-1",
            "admittedTime": _MOMENT,
            "runningTime": _MOMENT,
            "yieldTime": _MOMENT,
            "endTime": _MOMENT,
            "result": "Failed",
            "reason": names.REASON_SOFTWARE_ERROR,
            "message": "ValueError: boom",
            "node": "node-7",
            "nodes": 3,
            "nodesTime": _MOMENT,
            "nodeSeconds": 7200,
            "time": {"queued": "1.5", "compute": "60"},
        }
    ],
    "progress": {
        "epoch": 1,
        "epochs": 30,
        "step": 100,
        "percent": 3,
        "imagesPerSecond": "812.5",
        "etaSeconds": 900,
        "etaLowSeconds": 840,
        "etaHighSeconds": 1020,
        "eta": "15m (14m-17m)",
        "checkpointStep": 80,
        "straggler": {"rank": 3, "ratio": "1.8"},
        "stepTime": _MOMENT,
        "reportTime": _MOMENT,
        "metrics": [{"name": "val/top1", "value": "0.91"}],
    },
    "best": {"metric": "val/top1", "value": "0.91", "epoch": 1},
    "curve": [{"epoch": 1, "value": "0.91", "seconds": 12}],
    "time": dict.fromkeys(SCHEMA["status"]["properties"]["time"]["properties"], "1.5"),
    "fidelity": {"kid": "0.0413", "auc": "0.91", "tstr": "0.74", "trtr": "0.88", "gain": "0.031"},
    "goodput": "0.63",
    "nodeHours": "2.0000",
    "gpuHours": "4.0000",
    "cost": "12.5000 EUR",
    "stepTimes": {
        "nodes": 2,
        "processes": 4,
        "batch": 256,
        "microBatch": 64,
        "stepsPerEpoch": "312.5",
        "compute": "0.182",
        "dataWait": "0.004",
        "communication": "0.011",
        "allReduce": "0.06",
        "low": "0.192",
        "high": "0.208",
        "gradientBytes": 94_000_000,
        "evaluation": "3.1",
        "saving": "1.4",
        "startup": "14",
    },
    "forecast": {
        "basis": "steps measured on 2 nodes (4 processes)",
        "byNodes": [
            {
                "nodes": 2,
                "seconds": 1980,
                "lowSeconds": 1920,
                "highSeconds": 2040,
                "duration": "33m (32m-34m)",
                "cost": "2.29 USD (2.24-2.41)",
            }
        ],
    },
    "failure": {
        "reason": names.REASON_SOFTWARE_ERROR,
        "attempt": 1,
        "rank": 1,
        "pod": "flowers-1-1-abcde",
        "node": "node-7",
        "exitCode": 70,
        "message": "ValueError: boom",
        "logTail": "Traceback (most recent call last):\n",
    },
    "avoidedNodes": ["node-7"],
    "outputs": {
        "claim": "runs",
        "folder": "/flowers-01234567",
        "checkpoint": "checkpoints/100.pt",
        "model": "model/model.safetensors",
        "sha256": SHA,
    },
    "resolved": {"image": "trainer:1", "profile": "default", "numProcPerNode": 2},
    "traceId": "0af7651916cd43dd8448eb211c80319c",
}


def _status_cases() -> Iterator[Case]:
    yield Case("status with every field", STATUS, accepted=True)
    yield Case("status without any", {}, accepted=True)
    yield Case("status with a time of another kind", edit(STATUS, {"startTime": "yesterday"}), False, ("startTime",))
    for path, field in leaves(SCHEMA["status"]):
        for what, value in _offences(field):
            yield Case(f"status.{path}: {what}", _set(STATUS, path, value), accepted=False, words=(_name(path),))


STATUS_CASES = list(_status_cases())


# --- Updates. ---

_SPLIT = {"train": "0.6", "val": "0.2", "test": "0.2"}
_EVERYTHING = {
    "checkpoint": {"claim": "runs"},
    "rendezvous": "C10d",
    "resourcesPerNode": {"cpu": "2", "nvidia.com/gpu": 1},
}
_TWO = edit(CONTAINER, {"container.env": _env("A", "B"), "container.mounts": _mounts("/a", "/b")})


def _update(what: str, *refused: str, base: Spec = VISION, **changes: Any) -> Update:
    return Update(what, base, edit(base, _paths(changes)), refused)


_ELASTIC_JOB = VISION | {"elastic": _ELASTIC, "checkpoint": _CHECKPOINT}

UPDATES = [
    _update("nothing"),
    _update("a default written out", numNodes=1, profile="default", numProcPerNode="Auto", resourcesPerNode={}),
    _update("a default written out, far below", vision__schedule__epochs=30, vision__normalization={}),
    _update("a null added", checkpoint=None, rendezvous=None),
    _update("numNodes", "numNodes", numNodes=2),
    _update("elastic", "elastic", base=_ELASTIC_JOB, elastic={"minNodes": 1, "maxNodes": 3}),
    _update("elastic removed", "elastic", base=_ELASTIC_JOB, elastic=ABSENT),
    _update("numNodes removed", "numNodes", base=VISION | {"numNodes": 2}, numNodes=ABSENT),
    _update("profile", "profile", profile="other"),
    _update("profile removed", "profile", base=VISION | {"profile": "other"}, profile=ABSENT),
    _update("numProcPerNode", "numProcPerNode", numProcPerNode=2),
    _update(
        "numProcPerNode to another number", "numProcPerNode", base=VISION | {"numProcPerNode": 2}, numProcPerNode=4
    ),
    _update("numProcPerNode removed", "numProcPerNode", base=VISION | {"numProcPerNode": 2}, numProcPerNode=ABSENT),
    _update("resourcesPerNode added", "resourcesPerNode", resourcesPerNode={"cpu": "2"}),
    _update(
        "resourcesPerNode changed",
        "resourcesPerNode",
        base=VISION | _EVERYTHING,
        resourcesPerNode={"cpu": "3", "nvidia.com/gpu": 1},
    ),
    _update("a resource removed", "resourcesPerNode", base=VISION | _EVERYTHING, resourcesPerNode={"cpu": "2"}),
    _update(
        "a resource as a number",
        "resourcesPerNode",
        base=VISION | {"resourcesPerNode": {"cpu": "2"}},
        resourcesPerNode={"cpu": 2},
    ),
    _update("resourcesPerNode removed", "resourcesPerNode", base=VISION | _EVERYTHING, resourcesPerNode=ABSENT),
    _update(
        "resourcesPerNode in another order",
        base=VISION | _EVERYTHING,
        resourcesPerNode={"nvidia.com/gpu": 1, "cpu": "2"},
    ),
    _update("rendezvous added", "rendezvous", rendezvous="C10d"),
    _update("rendezvous changed", "rendezvous", base=VISION | _EVERYTHING, rendezvous="Static"),
    _update("rendezvous removed", "rendezvous", base=VISION | _EVERYTHING, rendezvous=ABSENT),
    _update("checkpoint added", "checkpoint", checkpoint={"claim": "runs"}),
    _update("checkpoint changed", "checkpoint", base=VISION | _EVERYTHING, checkpoint={"claim": "runs", "keep": 3}),
    _update("checkpoint removed", "checkpoint", base=VISION | _EVERYTHING, checkpoint=ABSENT),
    _update("managedBy added", "managedBy", managedBy="darkroom.dev/operator"),
    _update("managedBy changed", "managedBy", base=VISION | {"managedBy": "a.io/b"}, managedBy="a.io/c"),
    _update("managedBy removed", "managedBy", base=VISION | {"managedBy": "a.io/b"}, managedBy=ABSENT),
    _update("vision: batchSize", "vision", vision__batchSize=128),
    _update("vision: a class of its own added", "vision", vision__data__split=_SPLIT),
    _update(
        "vision: the split removed",
        "vision",
        base=edit(VISION, {"vision.data.split": _SPLIT}),
        vision__data__split=ABSENT,
    ),
    _update("vision: workers", "vision", vision__workers=0),
    _update("vision for container", "vision", "container", vision=ABSENT, container={"image": "mine:1"}),
    _update("container for vision", "vision", "container", base=CONTAINER, container=ABSENT, vision=VISION["vision"]),
    _update("container: image", "container", base=CONTAINER, container__image="mine:2"),
    _update("container: env added", "container", base=CONTAINER, container__env=_env("A")),
    _update("container: env removed", "container", base=_TWO, container__env=ABSENT),
    _update(
        "container: env value",
        "container",
        base=_TWO,
        container__env=[{"name": "A", "value": "y"}, {"name": "B", "value": "x"}],
    ),
    _update("container: env in another order", base=_TWO, container__env=_env("B", "A")),
    _update("container: mounts in another order", base=_TWO, container__mounts=_mounts("/b", "/a")),
    _update(
        "container: args in another order",
        "container",
        base=edit(CONTAINER, {"container.args": ["a", "b"]}),
        container__args=["b", "a"],
    ),
    _update("two at once", "numNodes", "profile", numNodes=3, profile="other"),
    _update("suspend", suspend=True),
    _update("suspend removed", base=VISION | {"suspend": True}, suspend=ABSENT),
    _update("activeDeadlineSeconds added", activeDeadlineSeconds=60),
    _update("activeDeadlineSeconds changed", base=VISION | {"activeDeadlineSeconds": 60}, activeDeadlineSeconds=90),
    _update("activeDeadlineSeconds removed", base=VISION | {"activeDeadlineSeconds": 60}, activeDeadlineSeconds=ABSENT),
    _update("scheduling added", scheduling={"priorityClassName": "high"}),
    _update("scheduling removed", base=VISION | {"scheduling": {"priorityClassName": "high"}}, scheduling=ABSENT),
    _update("budget added", budget={"maxCost": "3"}),
    _update("budget raised", base=VISION | {"budget": {"maxCost": "3"}}, budget={"maxCost": "4"}),
    _update("budget removed", base=VISION | {"budget": {"maxCost": "3"}}, budget=ABSENT),
    _update("startupDeadlineSeconds added", startupDeadlineSeconds=60),
    _update(
        "startupDeadlineSeconds removed", base=VISION | {"startupDeadlineSeconds": 60}, startupDeadlineSeconds=ABSENT
    ),
    _update("stallSeconds added", stallSeconds=60),
    _update("stallSeconds removed", base=VISION | {"stallSeconds": 60}, stallSeconds=ABSENT),
    _update("ttlSecondsAfterFinished added", ttlSecondsAfterFinished=60),
    _update(
        "ttlSecondsAfterFinished removed", base=VISION | {"ttlSecondsAfterFinished": 60}, ttlSecondsAfterFinished=ABSENT
    ),
    _update("restart.maxRestarts", restart__maxRestarts=9),
    _update("restart.backoffSeconds", restart__backoffSeconds=0),
    _update("restart.maxBackoffSeconds", restart__maxBackoffSeconds=60),
    _update("restart.rules", restart__rules=[_rule(exitCodes=[3])]),
    _update("restart removed", base=VISION | {"restart": {"maxRestarts": 0}}, restart=ABSENT),
]
