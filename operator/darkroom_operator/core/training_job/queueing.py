"""Queues and gangs: who lets an attempt's pods start together, and where an attempt stands that is not let yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom_api import names
from darkroom_api.v1alpha1.scheduling import Gang, Scheduling
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import Attempt
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job import objects, status
from darkroom_operator.core.training_job.gangs import POD_GROUPS, VOLCANO_SCHEDULER
from darkroom_operator.core.training_job.observe import Job, Observed, stored_status
from darkroom_operator.core.types import Body, Children

APIS: Mapping[Gang, tuple[tuple[str, str], ...]] = {
    Gang.KUEUE: (("kueue.x-k8s.io/v1beta2", "workloads"),),
    Gang.VOLCANO: (("scheduling.volcano.sh/v1beta1", "podgroups"),),
    Gang.COSCHEDULING: (("scheduling.x-k8s.io/v1alpha1", "podgroups"),),
    Gang.NATIVE: (("scheduling.k8s.io/v1beta1", "podgroups"), ("scheduling.k8s.io/v1alpha2", "podgroups")),
}
"""API version and resource by which each is known to be there; the first that is served is used."""
QUEUE_DUE_SECONDS = 15.0
"""A queueing system takes a Job in within a second; after this long there is none."""
_LOOK_SECONDS = (5.0, 300.0)
"""Between two looks at why a Job waits: a quarter of the time that it has waited, but not less and not more than these."""


@dataclass(frozen=True)
class Obstacle:
    """Why an attempt cannot be made as the spec asks."""

    reason: str
    message: str


def choose(spec: TrainingJobSpec, profile: Profile, served: Mapping[str, str]) -> Gang | Obstacle:
    """Who schedules the pods of the next attempt. served: API version by gang, as the API server has it."""
    wanted = spec.scheduling or Scheduling()
    if wanted.gang == Gang.AUTO:
        return _automatic(wanted, spec.nodes, profile, served)
    gang = Gang(wanted.gang)
    if gang == Gang.NONE or gang in served:
        return gang
    apis = " or ".join(f"{resource} of {version}" for version, resource in APIS[gang])
    message = f"spec.scheduling.gang: {gang.value} is asked for, and the cluster does not serve {apis}"
    return Obstacle(names.REASON_NO_QUEUE if gang == Gang.KUEUE else names.REASON_NO_GANG_SCHEDULER, message)


def _automatic(wanted: Scheduling, nodes: int, profile: Profile, served: Mapping[str, str]) -> Gang | Obstacle:
    if wanted.queue:
        kueues_own = wanted.topology or wanted.workload_priority_class_name
        found = next(
            (g for g in (Gang.KUEUE, Gang.VOLCANO) if g in served and not (kueues_own and g != Gang.KUEUE)), None
        )
        message = (
            f"spec.scheduling.queue: {wanted.queue!r} is asked for, and the cluster serves neither Kueue nor Volcano"
        )
        return found or Obstacle(names.REASON_NO_QUEUE, message)
    if nodes == 1:
        return Gang.NONE
    if profile.scheduler_name:
        gang = Gang.VOLCANO if profile.scheduler_name == VOLCANO_SCHEDULER else Gang.COSCHEDULING
        return gang if gang in served else Gang.NONE
    stable = "alpha" not in served.get(Gang.NATIVE, "alpha")
    return Gang.NATIVE if stable else Gang.NONE


def pod_group(seen: Observed, spec: TrainingJobSpec, attempt: Attempt, job: Job) -> tuple[Body, ...]:
    """The PodGroup of an attempt that needs one and has none on record; the record is brought up to date."""
    if attempt.pod_group or attempt.gang not in POD_GROUPS or seen.profile is None:
        return ()
    version = seen.served.get(attempt.gang)
    if version is None:
        return ()  # the API has gone, or is not answering; there is time
    attempt.pod_group = job.name
    owner = objects.Owner(seen.name, seen.namespace, seen.uid)
    return (objects.pod_group(owner, spec, seen.profile, job, version),)


# --- An attempt that waits in a queue. ---


@dataclass(frozen=True)
class Workload:
    """What Kueue says about a Job."""

    waiting: str = ""
    """Why there is no room yet."""
    inadmissible: bool = False
    """There will not be any, until somebody changes the queues."""
    evicted: str = ""
    """Why the nodes were taken back."""


def suspended_job(body: Body, children: Children) -> str | None:
    """UID of the Job about which its queueing system is worth asking, before a plan is made."""
    ended = {attempt.uid for attempt in stored_status(body).attempts or [] if attempt.end_time}
    for job in children.jobs:
        meta = job["metadata"]
        ours = meta["labels"].get(names.LABEL_JOB_UID) == body["metadata"]["uid"]
        if ours and (job.get("spec") or {}).get("suspend") and meta["uid"] not in ended:
            return str(meta["uid"])
    return None


def workload_of(seen: Observed, job: Job) -> Workload | None:
    """The newest of Kueue's Workloads for this Job."""
    found = [body for body in seen.workloads if _owned_by(body, job.uid)]
    if not found:
        return None
    newest = max(found, key=lambda body: str(body["metadata"].get("creationTimestamp", "")))
    conditions = {c["type"]: c for c in (newest.get("status") or {}).get("conditions") or []}
    quota, evicted = conditions.get("QuotaReserved", {}), conditions.get("Evicted", {})
    return Workload(
        waiting=quota.get("message", "") if quota.get("status") == "False" else "",
        inadmissible=quota.get("status") == "False" and quota.get("reason") == "Inadmissible",
        evicted=evicted.get("message", "") if evicted.get("status") == "True" else "",
    )


def _owned_by(body: Mapping[str, Any], uid: str) -> bool:
    return any(owner["uid"] == uid for owner in body["metadata"].get("ownerReferences") or [])


def waiting(seen: Observed, attempt: Attempt, job: Job) -> status.Phase:
    """Where an attempt stands whose Job a queueing system holds back."""
    workload, queue = workload_of(seen, job), f"queue {job.queue!r}"
    if workload and workload.inadmissible:
        return status.stalled(names.REASON_NO_QUEUE, f"spec.scheduling.queue: {workload.waiting}")
    if workload or (seen.now - job.created_at).total_seconds() < QUEUE_DUE_SECONDS:
        why = (workload.waiting if workload else "") or "its turn has not come"
        return status.queued(f"attempt {attempt.number} waits in {queue}: {why}")
    if job.queue is None:
        message = (
            f"Job {job.name} was suspended as queueing systems do, and it names no queue: set spec.scheduling.queue"
        )
        return status.stalled(names.REASON_NO_QUEUE, message)
    message = f"Job {job.name} waits in {queue}, and nothing takes it in: is Kueue running, and does it manage this namespace?"
    return status.stalled(names.REASON_NO_QUEUE, message)


def preempted(seen: Observed, attempt: Attempt) -> str | None:
    """Why the nodes of an attempt that had begun were taken back by its queue; None: they were not."""
    job = seen.jobs.get(attempt.number)
    if job is None or not job.suspended or job.ended == "Complete":
        return None
    if not any(pod.started_at for pod in seen.pods_of(attempt.number)):
        return None  # it goes on to wait, in the same place
    workload = workload_of(seen, job)
    return (
        f"queue {job.queue!r} took the nodes back: {(workload.evicted if workload else '') or 'the Job was suspended'}"
    )


def next_look(seen: Observed, job: Job) -> float:
    """Seconds until it is worth asking again why a Job waits. That it is let start is told by the Job itself."""
    least, most = _LOOK_SECONDS
    return min(most, max(least, (seen.now - job.created_at).total_seconds() / 4))
