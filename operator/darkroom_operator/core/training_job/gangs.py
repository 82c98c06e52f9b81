"""What a gang scheduler reads: marks on a Job and its pods, and the PodGroup that says how many belong together."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from darkroom_api import names
from darkroom_api.v1alpha1.scheduling import Gang, Scheduling, TopologyMode
from darkroom_operator.core.training_job.observe import Job

VOLCANO_SCHEDULER = "volcano"
POD_GROUPS = (Gang.VOLCANO, Gang.COSCHEDULING, Gang.NATIVE)
Object = dict[str, Any]


def join(job: Object, scheduling: Scheduling, gang: Gang, *, least_nodes: int) -> None:
    """Mark a Job, and the template of its pods. A PodGroup has the Job's name; until it is there, no pod is scheduled."""
    meta, template = job["metadata"], job["spec"]["template"]
    group = meta["name"]
    if gang == Gang.KUEUE:
        _queue(meta, template, scheduling)
        if least_nodes < job["spec"]["parallelism"]:
            _admit_in_part(meta, least_nodes)
    elif gang == Gang.VOLCANO:
        template["metadata"].setdefault("annotations", {})[names.VOLCANO_POD_GROUP] = group
        template["spec"].setdefault("schedulerName", VOLCANO_SCHEDULER)
    elif gang == Gang.COSCHEDULING:
        template["metadata"]["labels"][names.COSCHEDULING_POD_GROUP] = group
    elif gang == Gang.NATIVE:
        template["spec"]["schedulingGroup"] = {"podGroupName": group}
    if gang != Gang.NONE:
        meta.setdefault("annotations", {})[names.ANNOTATION_GANG] = gang.value


def _queue(meta: Object, template: Object, scheduling: Scheduling) -> None:
    """Kueue's webhook suspends a Job with this label when it is made; from then on that field is Kueue's."""
    meta["labels"][names.KUEUE_QUEUE] = scheduling.queue
    if scheduling.workload_priority_class_name:
        meta["labels"][names.KUEUE_PRIORITY] = scheduling.workload_priority_class_name
    if topology := scheduling.topology:
        required = topology.mode == TopologyMode.REQUIRED
        note = names.KUEUE_REQUIRED_TOPOLOGY if required else names.KUEUE_PREFERRED_TOPOLOGY
        template["metadata"].setdefault("annotations", {})[note] = topology.key


def _admit_in_part(meta: Object, least_nodes: int) -> None:
    """Kueue may lower parallelism to what there is room for; completions go with it, or the last ranks would never come."""
    notes = {names.KUEUE_MIN_PARALLELISM: str(least_nodes), names.KUEUE_COMPLETIONS: "true"}
    meta.setdefault("annotations", {}).update(notes)


def pod_group(
    job: Job,
    *,
    namespace: str,
    labels: Mapping[str, str],
    nodes: int,
    resources: Mapping[str, str],
    version: str,
    queue: str | None = None,
    priority: str | None = None,
) -> Object:
    """The PodGroup of an attempt; it goes with its Job. resources: of one pod; version: API version of the PodGroup."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job.name, "uid": job.uid, "controller": True}
    if job.gang == Gang.NATIVE:
        spec: Object = {"schedulingPolicy": {"gang": {"minCount": nodes}}}
    else:
        spec = {"minMember": nodes}
        if total := {name: times(amount, nodes) for name, amount in resources.items()}:
            spec["minResources"] = total
    if job.gang == Gang.VOLCANO:
        spec |= {key: value for key, value in (("queue", queue), ("priorityClassName", priority)) if value}
    return {
        "apiVersion": version,
        "kind": "PodGroup",
        "metadata": {
            "name": job.name,
            "namespace": namespace,
            "labels": dict(labels),
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def times(quantity: str, count: int) -> str:
    """A quantity `count` times over, in the same unit."""
    found = re.fullmatch(r"([0-9.]+)(.*)", quantity)
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity")
    amount = Decimal(found[1]) * count
    return f"{amount.normalize():f}{found[2]}"
