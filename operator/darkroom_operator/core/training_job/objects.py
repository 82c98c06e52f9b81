"""Desired children of a TrainingJob: one pure function per object."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from darkroom_api import names
from darkroom_api.report import ExitCode
from darkroom_api.v1alpha1.scheduling import Gang, Scheduling
from darkroom_api.v1alpha1.training_job import STALL_SECONDS, Launcher, TrainingJobSpec
from darkroom_api.v1alpha1.vision import CheckpointPolicy, TrainerConfig
from darkroom_operator.core.ownership import child_metadata
from darkroom_operator.core.profile import NetworkPolicy, Profile
from darkroom_operator.core.training_job import budget, gangs
from darkroom_operator.core.training_job.observe import MAIN_CONTAINER, Job
from darkroom_operator.core.training_job.tensorflow import tensorflow_env
from darkroom_operator.core.training_job.torchrun import torchrun_env
from darkroom_operator.core.training_job.volumes import feature_claim, mounts, volumes
from darkroom_operator.core.types import Channel

Object = dict[str, Any]


@dataclass(frozen=True)
class Owner:
    """The TrainingJob that the children belong to."""

    name: str
    namespace: str
    uid: str


def job_name(owner: Owner, attempt: int) -> str:
    """Name of an attempt's Job: new for each, so that a late pod of an old one is never taken for rank 0 of the new."""
    return f"{owner.name}-{attempt}"


def service_name(owner: Owner) -> str:
    """Name of the headless Service and the NetworkPolicy; with a prefix: a user may well have a Service of the job's name."""
    return f"darkroom-{owner.name}"


def run_folder(owner: Owner, spec: TrainingJobSpec) -> str:
    """The run's folder inside the checkpoint claim; the UID keeps a new job of an old name from resuming the old one."""
    base = spec.checkpoint.path.rstrip("/") if spec.checkpoint else ""
    return f"{base}/{owner.name}-{owner.uid[:8]}"


def processes_per_node(spec: TrainingJobSpec, profile: Profile) -> int:
    """Training processes of one pod."""
    if isinstance(spec.num_proc_per_node, int):
        return spec.num_proc_per_node
    return max(1, profile.accelerators_in(profile.resources_for(spec.resources_per_node)))


def image_of(spec: TrainingJobSpec, profile: Profile) -> str | None:
    """The image that will run, if there is one."""
    return spec.container.image if spec.container else profile.image


def priority_class_of(spec: TrainingJobSpec, profile: Profile) -> str | None:
    """The job's priority class, else the profile's."""
    asked = spec.scheduling.priority_class_name if spec.scheduling else None
    return asked or profile.priority_class_name


def service(owner: Owner, spec: TrainingJobSpec) -> Object:
    """Gives every pod a name before it is ready: rank 0 must resolve while all still wait for it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(owner, service_name(owner), _labels(owner, spec)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_JOB: owner.name, names.LABEL_JOB_UID: owner.uid},
        },
    }


def network_policy(owner: Owner, spec: TrainingJobSpec, policy: NetworkPolicy) -> Object:
    """Ranks to ranks on every port (NCCL and gloo choose their own), DNS, the operator, and what the profile lists."""
    ranks = {"podSelector": {"matchLabels": {names.LABEL_JOB: owner.name, names.LABEL_JOB_UID: owner.uid}}}
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": {names.LABEL_NAME: names.OPERATOR}}}
    dns = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    egress: list[Object] = [
        {"to": [ranks]},
        {"ports": dns},  # wherever: a node-local resolver has no pod that could be selected
        {"to": [operator], "ports": [{"port": names.REPORTS_PORT_NAME, "protocol": "TCP"}]},
    ]
    for allowed in policy.egress:
        ports = [{"port": port, "protocol": "TCP"} for port in allowed.ports]
        egress.append({"to": [{"ipBlock": {"cidr": allowed.cidr}}]} | ({"ports": ports} if ports else {}))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(owner, service_name(owner), _labels(owner, spec)),
        "spec": {
            **ranks,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [ranks]}],
            "egress": egress,
        },
    }


def job(
    owner: Owner,
    spec: TrainingJobSpec,
    profile: Profile,
    *,
    attempt: int,
    gang: Gang = Gang.NONE,
    avoid: Sequence[str] = (),
    channel: Channel | None = None,
) -> Object:
    """One attempt: an Indexed Job whose first failed pod ends the whole gang (backoffLimit 0)."""
    labels = _labels(owner, spec) | {names.LABEL_ATTEMPT: str(attempt)}
    pod = _pod_spec(owner, spec, profile, attempt=attempt)
    if avoid:
        pod["affinity"] = _elsewhere(avoid)
    if channel:
        _open_channel(pod, channel, owner, attempt)
    template_meta: Object = {"labels": labels}
    if profile.annotations:
        template_meta["annotations"] = dict(profile.annotations)
    made: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(owner, job_name(owner, attempt), dict(labels)),
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.nodes,
            "parallelism": spec.nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {"metadata": template_meta, "spec": pod},
            **(_elasticity() if spec.elastic else {}),
        },
    }
    gangs.join(made, spec.scheduling or Scheduling(), gang, least_nodes=spec.least_nodes)
    return made


def _elasticity() -> Object:
    """A pod that is taken away, or was asked to leave and did, is made again and costs nothing; any other end ends them all.

    Node 0 has the store where the nodes meet, and so is the last to end: with it, the training is complete, and a pod that
    found no node until then need not come any more.
    """
    taken = [{"type": "DisruptionTarget", "status": "True"}]
    left = {"containerName": MAIN_CONTAINER, "operator": "In", "values": [int(ExitCode.ASKED_TO_LEAVE)]}
    return {
        "podFailurePolicy": {
            "rules": [{"action": "Ignore", "onPodConditions": taken}, {"action": "Ignore", "onExitCodes": left}]
        },
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def pod_group(owner: Owner, spec: TrainingJobSpec, profile: Profile, job: Job, version: str) -> Object:
    """Tells the gang scheduler of an attempt's Job that its pods belong together; version: of the API that it is in."""
    return gangs.pod_group(
        job,
        namespace=owner.namespace,
        labels=_labels(owner, spec) | {names.LABEL_ATTEMPT: str(job.attempt)},
        nodes=spec.least_nodes,
        resources=profile.resources_for(spec.resources_per_node),
        version=version,
        queue=spec.scheduling.queue if spec.scheduling else None,
        priority=priority_class_of(spec, profile),
    )


def digest(job: Object, scheduling: Scheduling | None) -> str:
    """Tells two Jobs apart by what was asked for, whatever the API server and queueing systems make of them.

    job: without its gang, for which scheduler that is comes and goes with what the cluster serves.
    """
    asked = job["spec"]
    queueing = scheduling.to_wire() if scheduling else {}
    queueing.pop("priorityClassName", None)  # it is in the pods
    if queueing not in ({}, {"gang": "Auto"}):
        asked = asked | {"scheduling": queueing}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def signed(job: Object, signature: str) -> Object:
    """The Job with the digest by which a later look knows whether it is still what would be asked for."""
    notes = job["metadata"].get("annotations", {}) | {names.ANNOTATION_DIGEST: signature}
    return job | {"metadata": job["metadata"] | {"annotations": notes}}


def _metadata(owner: Owner, name: str, labels: dict[str, str]) -> Object:
    return child_metadata("TrainingJob", owner.name, owner.uid, namespace=owner.namespace, name=name, labels=labels)


def _labels(owner: Owner, spec: TrainingJobSpec) -> dict[str, str]:
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_JOB: owner.name,
        names.LABEL_JOB_UID: owner.uid,
        names.LABEL_PROFILE: spec.profile,
    }


def _pod_spec(owner: Owner, spec: TrainingJobSpec, profile: Profile, *, attempt: int) -> Object:
    identity = profile.security_context
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": profile.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": identity.run_as_user,
            "runAsGroup": identity.run_as_group,
            "fsGroup": identity.fs_group,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(owner, spec, profile, attempt=attempt)],
        "volumes": volumes(spec, profile),
    }
    if identity.supplemental_groups:
        pod["securityContext"]["supplementalGroups"] = list(identity.supplemental_groups)
    if spec.nodes > 1:
        pod["subdomain"] = service_name(owner)
    optional: Object = {
        "serviceAccountName": profile.service_account_name,
        "priorityClassName": priority_class_of(spec, profile),
        "schedulerName": profile.scheduler_name,
        "runtimeClassName": profile.runtime_class_name,
        "nodeSelector": dict(profile.node_selector),
        "tolerations": [toleration.to_wire() for toleration in profile.tolerations],
        "imagePullSecrets": [{"name": name} for name in profile.image_pull_secrets],
        "resourceClaims": [
            {"name": claim.name, "resourceClaimTemplateName": claim.resource_claim_template_name}
            for claim in profile.resource_claims
        ],
    }
    return pod | {key: value for key, value in optional.items() if value}


def _elsewhere(nodes: Sequence[str]) -> Object:
    """Rather not on these nodes; a job that fits nowhere else still runs there.

    By the node's name: the label kubernetes.io/hostname is another on some platforms.
    """
    others = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]
    term = {"weight": 100, "preference": {"matchFields": others}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}


def _container(owner: Owner, spec: TrainingJobSpec, profile: Profile, *, attempt: int) -> Object:
    resources = profile.resources_for(spec.resources_per_node)
    claims = {"claims": [{"name": claim.name} for claim in profile.resource_claims]} if profile.resource_claims else {}
    container: Object = {
        "name": MAIN_CONTAINER,
        "image": image_of(spec, profile),
        "imagePullPolicy": profile.image_pull_policy,
        "env": _env(owner, spec, profile, attempt=attempt),
        "volumeMounts": mounts(spec),
        "resources": {"requests": resources, "limits": resources} | claims,
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": spec.vision is not None,
        },
    }
    if spec.container:
        given = {"command": spec.container.command, "args": spec.container.args}
        container |= {key: list(value) for key, value in given.items() if value}
    else:
        container["args"] = ["train"]
    return container


def _env(owner: Owner, spec: TrainingJobSpec, profile: Profile, *, attempt: int) -> list[Object]:
    processes = processes_per_node(spec, profile)
    fixed = {
        names.ENV_JOB: owner.name,
        names.ENV_NAMESPACE: owner.namespace,
        names.ENV_ATTEMPT: str(attempt),
        names.ENV_RUN_DIR: names.RUNS_DIR + run_folder(owner, spec),
        names.ENV_TERMINATION_LOG: names.TERMINATION_LOG,
        "HOME": "/tmp",  # noqa: S108 - the root file system is read-only; /tmp is a volume of the pod's own
    }
    if limit := spec.stall_seconds or (STALL_SECONDS if spec.vision else None):
        fixed[names.ENV_STALL_SECONDS] = str(limit)
    env: list[Object] = [item.to_wire() for item in profile.env]
    env += [{"name": name, "value": value} for name, value in fixed.items()]
    env += [
        {"name": names.ENV_POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {
            "name": names.ENV_CPU_LIMIT,
            "valueFrom": {"resourceFieldRef": {"containerName": MAIN_CONTAINER, "resource": "limits.cpu"}},
        },
    ]
    env += _launcher_env(owner, spec, attempt=attempt, processes=processes)
    if spec.vision:
        config = trainer_config(owner, spec, profile, processes=processes)
        env.append({"name": names.ENV_CONFIG, "value": json.dumps(config.to_wire())})
    if spec.container and spec.container.env:
        env += [item.to_wire() for item in spec.container.env]
    return list({item["name"]: item for item in env}.values())  # the last of a name wins, each appears once


def _launcher_env(owner: Owner, spec: TrainingJobSpec, *, attempt: int, processes: int) -> list[Object]:
    """How the processes of an attempt find each other; empty for a container that brings its own way."""
    name, domain = job_name(owner, attempt), service_name(owner)
    hosts = [f"{name}-{index}.{domain}" for index in range(spec.nodes)] if spec.nodes > 1 else ["localhost"]
    match Launcher(spec.container.launcher) if spec.container else Launcher.TORCHRUN:
        case Launcher.TORCHRUN:
            return torchrun_env(spec, host=hosts[0], processes=processes, run_id=f"{owner.uid}-{attempt}")
        case Launcher.TENSORFLOW:
            return tensorflow_env(hosts)
        case Launcher.NONE:
            return []


def report_path(uid: str, attempt: int | str) -> str:
    """URL path for live reports of an attempt: who reports for what is in the address, and checked against the token."""
    return f"/v1/training-jobs/{uid}/attempts/{attempt}/reports"


def _open_channel(pod: Object, channel: Channel, owner: Owner, attempt: int) -> None:
    """Live reports: where to, whom to trust there, and a token that is good for nothing else."""
    (container,) = pod["containers"]
    env = {
        names.ENV_REPORT_URL: f"https://{channel.address}{report_path(owner.uid, attempt)}",
        names.ENV_REPORT_CA: channel.authority,
        names.ENV_REPORT_TOKEN_FILE: f"{names.REPORT_TOKEN_DIR}/token",
    }
    token = {"path": "token", "audience": names.REPORT_AUDIENCE, "expirationSeconds": 3600}
    container["env"] += [{"name": name, "value": value} for name, value in env.items()]
    container["volumeMounts"].append({"name": "report", "mountPath": names.REPORT_TOKEN_DIR, "readOnly": True})
    pod["volumes"].append({"name": "report", "projected": {"sources": [{"serviceAccountToken": token}]}})


def trainer_config(owner: Owner, spec: TrainingJobSpec, profile: Profile, *, processes: int = 1) -> TrainerConfig:
    """What the built-in trainer reads. processes: of one pod."""
    if spec.vision is None:
        raise ValueError("a job with a container of its own has no trainer config")
    saved = spec.checkpoint
    vision = spec.vision
    if (
        spec.elastic and vision.micro_batch_size is None
    ):  # or it followed from whoever came first, and later nodes had no work
        largest = spec.nodes * processes
        vision = vision.model_copy(update={"micro_batch_size": math.ceil(vision.batch_size / largest)})
    price = budget.price_per_hour(spec, profile)
    return TrainerConfig(
        vision=vision,
        data_dir=names.DATA_DIR,
        weights_dir=names.WEIGHTS_DIR if spec.vision.model.weights else None,
        run_dir=names.RUNS_DIR + run_folder(owner, spec),
        budget_seconds=budget.seconds_of_all(spec, profile),
        price_per_hour=f"{price:.6g}" if price else None,
        currency=profile.currency,
        cache_dir=names.FEATURES_DIR if feature_claim(spec.vision) else None,
        checkpoint=CheckpointPolicy(every_seconds=saved.every_seconds, keep=saved.keep)
        if saved
        else CheckpointPolicy(),
    )
