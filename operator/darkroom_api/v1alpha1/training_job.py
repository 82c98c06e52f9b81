"""TrainingJob: one training, from `kubectl apply` to a checkpoint and an exported model."""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from darkroom_api import names
from darkroom_api.v1alpha1.budget import Budget
from darkroom_api.v1alpha1.common import (
    ClaimName,
    DnsLabel,
    Model,
    Quantity,
    Rule,
    VolumePath,
    whole_number,
    without_nulls,
)
from darkroom_api.v1alpha1.elastic import Elastic
from darkroom_api.v1alpha1.restart import Restart
from darkroom_api.v1alpha1.scheduling import Scheduling
from darkroom_api.v1alpha1.vision import CheckpointPolicy, Vision

MAX_TENSORFLOW_NODES = 256
"""An environment variable holds 128 KiB, and a node's name takes up to 140 bytes of it."""
STALL_SECONDS = 600
"""Of stallSeconds, with the built-in trainer: as long as torch's collectives wait for a peer."""
MAX_NAME_LENGTH = 54
"""Hostnames are `<name>-<attempt>-<index>`: a DNS label of 63, less 4 digits of attempt, 3 of index and two hyphens.

The Service `darkroom-<name>` must be one too: 9 + 54 = 63.
"""


class Launcher(StrEnum):
    """What the container expects to find in its environment."""

    TORCHRUN = "Torchrun"
    TENSORFLOW = "TensorFlow"
    NONE = "None"


class Rendezvous(StrEnum):
    """How the nodes of a job find each other."""

    C10D = "C10d"
    STATIC = "Static"


class EnvVar(Model):
    """One environment variable."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name.")]
    value: Annotated[str, Field(max_length=4096, description="Value.")] = ""


class Mount(Model):
    """A claim made visible in the container."""

    claim: Annotated[ClaimName, Field(description="PersistentVolumeClaim in the job's namespace.")]
    mount_path: Annotated[
        VolumePath,
        Field(min_length=2, description="Absolute path in the container; not below /darkroom, /dev or /tmp."),
    ]
    read_only: Annotated[bool, Field(description="Mounted read-only.")] = False


def _reserved(name: str) -> bool:
    return name.startswith(names.RESERVED_ENV_PREFIXES) or name in names.RESERVED_ENV_NAMES


_RESERVED_CEL = " || ".join(
    [f"e.name.startsWith('{prefix}')" for prefix in names.RESERVED_ENV_PREFIXES]
    + [f"e.name in {list(names.RESERVED_ENV_NAMES)}"]
)
_OWN_DIRS = ("/darkroom", "/dev", "/tmp")  # noqa: S108 - names of mounts, nothing is written here


class Container(Model):
    """Training with an image of your own: any program that exits with 0 when it is done.

    Exit codes: 65 bad data, 78 bad configuration, 79 bad synthetic images (never restarted); 75 asked to leave after a
    checkpoint (restarted for free); anything else is restarted and spends one of maxRestarts. Save to $DARKROOM_RUN_DIR to
    resume from there.
    """

    rules = (
        Rule(
            cel=f"!has(self.env) || !self.env.exists(e, {_RESERVED_CEL})",
            message="env must not set what the operator sets: PET_*, DARKROOM_*, TORCHELASTIC_*, MASTER_ADDR, MASTER_PORT, "
            "RANK, LOCAL_RANK, WORLD_SIZE and the like",
            holds=lambda c: not any(_reserved(e.name) for e in c.env or []),
            field="env",
        ),
        Rule(
            cel="self.launcher != 'TensorFlow' || !has(self.env) || !self.env.exists(e, e.name == 'TF_CONFIG')",
            message="env must not set TF_CONFIG where launcher is TensorFlow: the operator does",
            holds=lambda c: (
                c.launcher != Launcher.TENSORFLOW or not any(e.name == names.TF_CONFIG for e in c.env or [])
            ),
            field="env",
        ),
        Rule(
            cel="!has(self.env) || self.env.all(e, self.env.exists_one(o, o.name == e.name))",
            message="env names must be unique",
            holds=lambda c: len({e.name for e in c.env or []}) == len(c.env or []),
            field="env",
        ),
        Rule(
            cel="!has(self.mounts) || self.mounts.all(m, self.mounts.exists_one(o, o.mountPath == m.mountPath))",
            message="mountPath must be unique",
            holds=lambda c: len({m.mount_path for m in c.mounts or []}) == len(c.mounts or []),
            field="mounts",
        ),
        Rule(
            cel="!has(self.mounts) || !self.mounts.exists(m, m.mountPath.matches('^/(darkroom|dev|tmp)(/|$)'))",
            message="mountPath must not be in /darkroom, /dev or /tmp",
            holds=lambda c: (
                not any(
                    m.mount_path == own or m.mount_path.startswith(own + "/")
                    for m in c.mounts or []
                    for own in _OWN_DIRS
                )
            ),
            field="mounts",
        ),
    )
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[!-~]+$", description="Image.")]
    command: Annotated[
        list[Annotated[str, Field(max_length=4096)]] | None,
        Field(max_length=64, description="Entry point; absent: the image's own."),
    ] = None
    args: Annotated[
        list[Annotated[str, Field(max_length=8192)]] | None,
        Field(max_length=128, description="Arguments; absent: the image's own."),
    ] = None
    env: Annotated[
        list[EnvVar] | None,
        Field(
            max_length=64,
            description="Environment. Names that the operator sets are refused.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = None
    mounts: Annotated[
        list[Mount] | None,
        Field(
            max_length=16,
            description="Claims to mount.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["mountPath"]},
        ),
    ] = None
    launcher: Annotated[
        Launcher,
        Field(
            description="Torchrun: PET_* variables are set, so that a bare `torchrun train.py` joins the other nodes. "
            "TensorFlow: TF_CONFIG is set, so that MultiWorkerMirroredStrategy does; one process per pod. "
            "None: only JOB_COMPLETION_INDEX and DARKROOM_*."
        ),
    ] = Launcher.TORCHRUN


class Checkpoint(CheckpointPolicy):
    """Where a run keeps what it must not lose."""

    claim: Annotated[
        ClaimName,
        Field(
            description="PersistentVolumeClaim for checkpoints and the exported model, writable from every node. "
            "The run's folder in it is `<path>/<name>-<first 8 of the job's uid>`."
        ),
    ]
    path: Annotated[VolumePath, Field(description="Folder inside the claim.")] = "/"


_RESOURCE = (
    "cpu|memory|ephemeral-storage|hugepages-[0-9]{1,9}[KMG]i|"
    "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
"""What a container may ask for: a Job's pods with any other name without a domain (`gpu`, say) would be refused."""

_SHAPE = (
    "profile",
    "numNodes",
    "elastic",
    "numProcPerNode",
    "resourcesPerNode",
    "rendezvous",
    "vision",
    "container",
    "checkpoint",
    "managedBy",
)
"""Fields that shape a run, or say whose it is: fixed once the job exists."""


def _immutable(field: str) -> Rule:
    return Rule(
        cel=f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        message=f"{field} is immutable: delete the job and create it again, or create one of another name",
        holds=lambda _: True,  # a transition: see immutable_changes
        field=field,
    )


class TrainingJobSpec(Model):
    """What to train, on what."""

    rules = (
        Rule(
            cel="has(self.vision) != has(self.container)",
            message="exactly one of vision and container must be set",
            holds=lambda s: (s.vision is None) != (s.container is None),
        ),
        Rule(
            cel=f"self.resourcesPerNode.all(k, k.matches('^({_RESOURCE})$'))",
            message="resourcesPerNode must have names of resources as keys: cpu, memory, ephemeral-storage, hugepages-2Mi, or "
            "devices as nvidia.com/gpu",
            holds=lambda s: all(re.fullmatch(_RESOURCE, key) for key in s.resources_per_node),
            field="resourcesPerNode",
        ),
        Rule(
            cel="self.resourcesPerNode.all(k, !k.contains('/') || type(self.resourcesPerNode[k]) == int || "
            "string(self.resourcesPerNode[k]).matches('^[0-9]+$'))",
            message="resourcesPerNode must give devices such as nvidia.com/gpu in whole numbers",
            holds=lambda s: all(whole_number(v) for k, v in s.resources_per_node.items() if "/" in k),
            field="resourcesPerNode",
        ),
        Rule(
            cel="self.resourcesPerNode.all(k, type(self.resourcesPerNode[k]) != int || int(self.resourcesPerNode[k]) >= 0)",
            message="resourcesPerNode must not be negative",
            holds=lambda s: all(not isinstance(v, int) or v >= 0 for v in s.resources_per_node.values()),
            field="resourcesPerNode",
        ),
        Rule(
            cel="type(self.numProcPerNode) == int ? int(self.numProcPerNode) >= 1 && int(self.numProcPerNode) <= 64 : "
            "string(self.numProcPerNode) == 'Auto'",
            message="numProcPerNode must be Auto or a number from 1 to 64",
            holds=lambda s: s.num_proc_per_node == "Auto" or 1 <= s.num_proc_per_node <= 64,
            field="numProcPerNode",
        ),
        Rule(
            cel=f"!has(self.container) || self.container.launcher != 'TensorFlow' || self.numNodes <= {MAX_TENSORFLOW_NODES}",
            message=f"numNodes must be at most {MAX_TENSORFLOW_NODES} with launcher TensorFlow: TF_CONFIG names every node",
            holds=lambda s: (
                s.container is None
                or s.container.launcher != Launcher.TENSORFLOW
                or s.num_nodes <= MAX_TENSORFLOW_NODES
            ),
            field="numNodes",
        ),
        Rule(
            cel="!has(self.container) || self.container.launcher != 'TensorFlow' || self.numProcPerNode == 'Auto' || "
            "self.numProcPerNode == 1",
            message="numProcPerNode must be Auto or 1 with launcher TensorFlow: one process uses all GPUs of its pod",
            holds=lambda s: (
                s.container is None or s.container.launcher != Launcher.TENSORFLOW or s.num_proc_per_node in ("Auto", 1)
            ),
            field="numProcPerNode",
        ),
        Rule(
            cel="!has(self.elastic) || self.numNodes == 1",
            message="numNodes must be absent where elastic is set: elastic.maxNodes is the number of pods asked for",
            holds=lambda s: s.elastic is None or s.num_nodes == 1,
            field="numNodes",
        ),
        Rule(
            cel="!has(self.elastic) || (has(self.vision) && has(self.checkpoint))",
            message="elastic needs vision and checkpoint: the built-in trainer goes on from there when the group changes",
            holds=lambda s: s.elastic is None or (s.vision is not None and s.checkpoint is not None),
            field="elastic",
        ),
        Rule(
            cel="!has(self.elastic) || !has(self.rendezvous) || self.rendezvous != 'Static'",
            message="rendezvous must not be Static where elastic is set",
            holds=lambda s: s.elastic is None or s.rendezvous != "Static",
            field="rendezvous",
        ),
    )
    transitions: ClassVar[tuple[Rule, ...]] = tuple(_immutable(field) for field in _SHAPE)

    profile: Annotated[
        DnsLabel,
        Field(description="What the platform team offers under this name: image, node selection, defaults, prices."),
    ] = "default"
    num_nodes: Annotated[int, Field(ge=1, le=1000, description="Pods, each with numProcPerNode processes.")] = 1
    elastic: Annotated[
        Elastic | None,
        Field(
            description="In place of numNodes: the training goes on with fewer nodes when some are lost or cannot be had, and "
            "with more when they come, without a new attempt."
        ),
    ] = None
    num_proc_per_node: Annotated[
        int | Literal["Auto"],
        WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": "^Auto$", "maxLength": 4}),
        Field(description="Training processes per pod. Auto: the pod's GPUs, else 1."),
    ] = "Auto"
    resources_per_node: Annotated[
        dict[str, Quantity],
        Field(
            max_length=16,
            description="Requests and limits of each pod, merged over the profile's by name: cpu, memory, nvidia.com/gpu, ...",
        ),
        BeforeValidator(without_nulls),
    ] = {}
    rendezvous: Annotated[
        Rendezvous | None,
        Field(
            description="How torchrun's agents meet. C10d: a store on node 0. Static: fixed ranks. "
            "Absent: C10d for vision, Static for container."
        ),
    ] = None
    vision: Annotated[
        Vision | None, Field(description="Train with the built-in trainer. Exactly one of vision and container.")
    ] = None
    container: Annotated[
        Container | None, Field(description="Train with your own image. Exactly one of vision and container.")
    ] = None
    checkpoint: Annotated[
        Checkpoint | None,
        Field(
            description="Where to save. Absent: nothing outlives a pod, and every attempt starts from the beginning."
        ),
    ] = None
    scheduling: Annotated[
        Scheduling | None,
        Field(
            description="How the pods compete for nodes. Absent: as the profile says. May be changed: an attempt of which no "
            "pod has run is made anew, any other keeps what it was made with."
        ),
    ] = None
    restart: Annotated[Restart, Field(description="What happens after a failed attempt.")] = Restart()
    budget: Annotated[
        Budget | None,
        Field(
            description="What the training may take: at a limit it finishes with what it has learnt. May be changed."
        ),
    ] = None
    suspend: Annotated[
        bool,
        Field(
            description="True: no pods; running ones are asked to save and leave. False again: a new attempt resumes. "
            "May be changed."
        ),
    ] = False
    active_deadline_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=31536000,
            description="Seconds after which the job fails, added up over its attempts. An attempt counts from its start, "
            "waiting for nodes and images included; time in a queue, pauses between attempts and while suspended do not count. "
            "May be changed.",
        ),
    ] = None
    startup_deadline_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=31536000,
            description="Seconds from the start of an attempt within which every pod must run: scheduled, image pulled, "
            "started. Otherwise the attempt is ended and the job fails with what held it up, unless a restart rule for "
            "StartupDeadlineExceeded says otherwise. Time suspended or in a queue does not count. "
            "Absent: it waits. May be changed.",
        ),
    ] = None
    stall_seconds: Annotated[
        int | None,
        Field(
            ge=10,
            le=31536000,
            description="Seconds without progress after which an attempt is ended with reason NoProgress and the stacks of its "
            "processes; it spends a restart, unless a restart rule says otherwise. With vision: without a step or an "
            "evaluation's batch, once the first is done (absent: 600). With container: without a live report of a new step, "
            "once there was one (absent: no limit). May be changed; the built-in trainer hears of it in the next attempt.",
        ),
    ] = None
    ttl_seconds_after_finished: Annotated[
        int | None,
        Field(ge=0, le=31536000, description="Seconds after its end when the job object is deleted. May be changed."),
    ] = None
    managed_by: Annotated[
        str | None,
        Field(
            min_length=3,
            max_length=63,
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9][-A-Za-z0-9_./]*$",
            description=f"Controller that carries the job out, as <domain>/<name>. Absent or {names.CONTROLLER}: this operator. "
            "A job with any other value is left alone: no pods, no status, no events.",
        ),
    ] = None

    @property
    def nodes(self) -> int:
        """Pods that the job asks for."""
        return self.elastic.max_nodes if self.elastic else self.num_nodes

    @property
    def least_nodes(self) -> int:
        """Pods without which it cannot train."""
        return self.elastic.min_nodes if self.elastic else self.num_nodes


def immutable_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Messages for what an update of a spec (wire form, defaults filled in) may not change; the CRD's transition rules."""
    return [
        rule.message
        for field, rule in zip(_SHAPE, TrainingJobSpec.transitions, strict=True)
        if comparable(old.get(field)) != comparable(new.get(field))
    ]


def comparable(value: Any) -> Any:
    """As CEL compares: lists of objects (env, mounts) are maps by a key, so their order says nothing."""
    if isinstance(value, Mapping):
        return {key: comparable(inner) for key, inner in value.items()}
    if isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        return sorted((comparable(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True))
    return value


def name_problem(name: str) -> str | None:
    """Why a TrainingJob may not be called so, or None; the CRD's rule on metadata.name."""
    return None if NAME_RULE.holds(name) else NAME_RULE.message


def _good_name(name: str) -> bool:
    return len(name) <= MAX_NAME_LENGTH and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None


NAME_RULE = Rule(
    cel=f"size(self.metadata.name) <= {MAX_NAME_LENGTH} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    message=f"metadata.name must be at most {MAX_NAME_LENGTH} lower-case letters, digits and hyphens, beginning with a "
    "letter: pods are called <name>-<attempt>-<index>",
    holds=_good_name,
)
