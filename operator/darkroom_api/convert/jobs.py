"""Jobs of others to a TrainingJob's spec: PyTorchJob, TFJob, TrainJob, and a plain Job as Katib's trials have it."""

from collections.abc import Callable
from typing import Any

from darkroom_api.convert.pods import Object, container_of, pods, resources_of
from darkroom_api.convert.source import ConversionError, Source

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MAX_RESTARTS = 100


def pytorch_job(body: Source, *, container_name: str | None = "pytorch", image: str | None = None) -> Object:
    """kubeflow.org/v1 PyTorchJob. Its pods got RANK and MASTER_ADDR; here torchrun hands them out."""
    spec = body.at("spec")
    made, nodes = _replicas(spec.at("pytorchReplicaSpecs"), ("Master", "Worker"), container_name, image)
    elastic = spec.at("elasticPolicy")
    for key in ("minReplicas", "maxReplicas", "metrics"):
        elastic.lose(key, f"numNodes {nodes} is fixed: elastic is for the built-in trainer")
    processes = spec.get("nprocPerNode", elastic.get("nProcPerNode"))
    if elastic.get("rdzvBackend") == "c10d":
        made["rendezvous"] = "C10d"
    made["container"]["launcher"] = "Torchrun"
    command = made["container"].get("command")
    if command and not any("torchrun" in word or "torch.distributed" in word for word in command):
        made["container"]["command"] = ["torchrun", "--no-python", *command]
        spec.note("the command is started by torchrun, which sets RANK and MASTER_ADDR for it", "pytorchReplicaSpecs")
    elif not command:
        spec.note("no command: the image must start torchrun, for RANK is not set without it", "pytorchReplicaSpecs")
    restarts = elastic.number("maxRestarts")
    return {**made, "numNodes": nodes, **_processes(processes), **_policy(spec, restarts, made)}


def tf_job(body: Source, *, container_name: str | None = "tensorflow", image: str | None = None) -> Object:
    """kubeflow.org/v1 TFJob of workers, as MultiWorkerMirroredStrategy has them."""
    spec = body.at("spec")
    made, nodes = _replicas(spec.at("tfReplicaSpecs"), ("Chief", "Master", "Worker"), container_name, image)
    made["container"]["launcher"] = "TensorFlow"
    return {**made, "numNodes": nodes, **_policy(spec, None, made)}


def plain_job(body: Source, *, container_name: str | None = None, image: str | None = None) -> Object:
    """batch/v1 Job."""
    spec = body.at("spec")
    made = pods(spec.at("template"), container_name=container_name, image=image)
    made["container"]["launcher"] = "None"
    nodes = spec.number("completions") or spec.number("parallelism") or 1
    spec.pass_over("parallelism", "completionMode")
    return {**made, "numNodes": nodes, **_limits(spec, None)}


def train_job(body: Source, *, container_name: str | None = None, image: str | None = None) -> Object:
    """trainer.kubeflow.org/v1alpha1 TrainJob of a torch runtime."""
    del container_name  # a TrainJob has one
    spec = body.at("spec")
    trainer = spec.at("trainer")
    runtime = spec.at("runtimeRef").get("name")
    spec.lose("runtimeRef", f"what runtime {runtime} adds is not in this file: volumes, environment, nodes")
    for key in ("podTemplateOverrides", "runtimePatches", "podSpecOverrides"):
        spec.lose(key, "a profile of the platform team says this")
    spec.lose("initializer", "no counterpart: put data and model on claims, and mount them")
    spec.pass_over("managedBy")
    container = {**container_of(trainer, image), "launcher": "Torchrun"}
    resources = resources_of(trainer.at("resourcesPerNode"))
    return {
        "container": container,
        **({"resourcesPerNode": resources} if resources else {}),
        "numNodes": trainer.number("numNodes") or 1,
        **_processes(trainer.get("numProcPerNode")),
        **_limits(spec, None),
    }


JOBS: dict[tuple[str, str], Callable[..., Object]] = {
    ("kubeflow.org", "PyTorchJob"): pytorch_job,
    ("kubeflow.org", "TFJob"): tf_job,
    ("trainer.kubeflow.org", "TrainJob"): train_job,
    ("batch", "Job"): plain_job,
}
"""By API group and kind."""


def _replicas(specs: Source, kinds: tuple[str, ...], name: str | None, image: str | None) -> tuple[Object, int]:
    """What the pods are, from the first kind that there is, and how many of all kinds."""
    there = [kind for kind in kinds if kind in specs.value]
    if not there:
        raise ConversionError(f"{specs.path}: none of {', '.join(kinds)}")
    first, *others = (specs.at(kind) for kind in there)
    names = {container.get("name") for container in first.at("template").value.get("spec", {}).get("containers", [])}
    made = pods(first.at("template"), container_name=name if name in names else None, image=image)
    for other in others:
        if other.value.get("template") != first.value.get("template"):
            other.lose("template", f"every node runs what {there[0]} runs")
        other.pass_over("template")
    for kind in set(specs.value) - set(kinds):
        specs.lose(kind, "no counterpart")
    policies = {replica.get("restartPolicy") for replica in (first, *others)}
    if policies == {"Never"}:
        made["restart"] = {"maxRestarts": 0}
    return made, sum(replica.number("replicas") or 1 for replica in (first, *others))


def _processes(given: Any) -> Object:
    if given is None or str(given) in ("auto", "cpu", "gpu"):
        return {}
    return {"numProcPerNode": int(given)}


def _policy(spec: Source, restarts: int | None, made: Object) -> Object:
    """runPolicy of the training operator's jobs."""
    policy = spec.at("runPolicy")
    policy.lose("cleanPodPolicy", "pods of a finished job stay until it is deleted: ttlSecondsAfterFinished")
    policy.pass_over("managedBy")
    gang = policy.at("schedulingPolicy")
    gang.pass_over("minAvailable")
    scheduling = dict(made.get("scheduling", {}))
    if queue := gang.get("queue"):
        scheduling |= {"queue": queue, "gang": "Volcano"}
    if priority := gang.get("priorityClass"):
        scheduling["priorityClassName"] = priority
    limits = _limits(policy, restarts)
    if "restart" in made and "restart" not in limits:
        limits["restart"] = made["restart"]
    return {**limits, **({"scheduling": scheduling} if scheduling else {})}


def _limits(policy: Source, restarts: int | None) -> Object:
    """What Job, runPolicy and TrainJob call by the same names."""
    backoff = policy.number("backoffLimit")
    restarts = backoff if restarts is None else restarts
    found: Object = {
        "activeDeadlineSeconds": policy.number("activeDeadlineSeconds"),
        "ttlSecondsAfterFinished": policy.number("ttlSecondsAfterFinished"),
        "suspend": policy.get("suspend") or None,
        "restart": None if restarts is None else {"maxRestarts": min(restarts, MAX_RESTARTS)},
    }
    return {key: value for key, value in found.items() if value is not None}
