"""Gather: raw objects of the API server to the few facts that decisions look at."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from darkroom_api import names
from darkroom_api.report import TerminationMessage
from darkroom_api.v1alpha1.common import describe_errors
from darkroom_api.v1alpha1.training_job import TrainingJobSpec
from darkroom_api.v1alpha1.training_job_status import TrainingJobStatus
from darkroom_operator.core.conditions import parse_time
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.types import Body, Channel, Children, Facts, Live, Precedent, Refusal

MAIN_CONTAINER = "trainer"
SLACK = timedelta(seconds=5)
"""Clocks of one cluster may differ by this much."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True)
class Terminated:
    """How a pod's container ended."""

    exit_code: int
    reason: str
    text: str
    finished_at: datetime | None

    @property
    def report(self) -> TerminationMessage | None:
        """What the trainer said, if it speaks the protocol."""
        return TerminationMessage.decode(self.text)


@dataclass(frozen=True)
class Pod:
    """One node of an attempt."""

    name: str
    uid: str
    attempt: int
    index: int
    phase: str
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    node: str | None = None
    deleting: bool = False
    departed: bool = False
    disrupted: str | None = None
    """Message of the condition DisruptionTarget."""
    unschedulable: str | None = None
    """The scheduler's message."""
    waiting: tuple[str, str] | None = None
    """Reason and message of a container that cannot start."""
    terminated: Terminated | None = None

    @property
    def live(self) -> bool:
        """Holds, or may yet hold, its resources."""
        return not self.departed and self.phase not in ("Succeeded", "Failed")

    @property
    def leaving(self) -> bool:
        """Has run, was told to end, and has not ended yet: on a lost node that may take for ever."""
        return self.live and self.deleting and self.started_at is not None

    @property
    def up(self) -> bool:
        """Runs, or has run to its end."""
        return (self.phase == "Running" and self.started_at is not None) or self.phase == "Succeeded"


@dataclass(frozen=True)
class Job:
    """The batch/v1 Job of one attempt."""

    name: str
    uid: str
    attempt: int
    created_at: datetime
    started_at: datetime | None = None
    """When the Job controller began to make pods; anew after each time that the Job itself was suspended."""
    parallelism: int | None = None
    """How many pods it asks for: a queue may have admitted fewer than the spec says."""
    suspended: bool = False
    """By a queueing system: the operator never suspends a Job."""
    queue: str | None = None
    """Queue of Kueue that it was made for."""
    gang: str | None = None
    """Who schedules its pods all or none."""
    digest: str | None = None
    """Of the spec that was asked for (objects.digest)."""
    deleting: bool = False
    failing: bool = False
    """FailureTarget is set: the outcome is known, pods are still ending."""
    ended: str | None = None
    """`Complete` or `Failed`, once no pod is left."""
    ended_at: datetime | None = None
    reason: str = ""
    message: str = ""

    def asks_for(self, nodes: int) -> int:
        """How many pods will come of the `nodes` that the spec says."""
        return nodes if self.parallelism is None else min(nodes, self.parallelism)

    @property
    def due_from(self) -> datetime | None:
        """When its pods became due; None while a queue holds it, and for the moment until the Job controller has noticed."""
        if self.suspended:
            return None
        return self.started_at if self.queue else self.started_at or self.created_at


@dataclass(frozen=True)
class Observed:
    """Everything that a decision about one TrainingJob may depend on."""

    name: str
    namespace: str
    uid: str
    generation: int
    now: datetime
    spec: TrainingJobSpec | None
    problems: tuple[str, ...]
    """Why `spec` is None."""
    status: TrainingJobStatus
    """As stored."""
    jobs: Mapping[int, Job]
    pods: tuple[Pod, ...]
    services: tuple[Body, ...]
    network_policies: tuple[Body, ...]
    workloads: tuple[Body, ...]
    served: Mapping[str, str]
    profile: Profile | None
    profile_names: tuple[str, ...]
    refusal: Refusal | None
    deleting: bool = False
    live: Live | None = None
    channel: Channel | None = None
    listening_since: datetime | None = None
    precedent: Precedent | None = None
    objective: str | None = None
    """Of a sweep's trial: the metric whose values by epoch the status keeps."""
    leave: tuple[str, str] | None = None
    """Of a sweep's trial: reason and message, once the sweep wants it to save and leave."""
    trace_id: str | None = None
    """Of the trace of its life, once that was sent."""

    def pods_of(self, attempt: int) -> list[Pod]:
        """Every pod of an attempt that is known, by index."""
        return sorted((p for p in self.pods if p.attempt == attempt), key=lambda p: p.index)

    @property
    def told(self) -> tuple[str, str]:
        """Reason and message of the stored condition Ready."""
        return told_by(self.status)

    def current_pods(self, attempt: int) -> list[Pod]:
        """The pod that stands for each index now: a pod deleted before it ran is replaced within its Job."""
        newest = {
            pod.index: pod
            for pod in sorted(self.pods_of(attempt), key=lambda p: (not p.departed, p.created_at or self.now))
        }
        return [newest[index] for index in sorted(newest)]

    @property
    def live_pods(self) -> list[Pod]:
        """Pods of any attempt that hold resources."""
        return [pod for pod in self.pods if pod.live]


def told_by(status: TrainingJobStatus) -> tuple[str, str]:
    """Reason and message of its condition Ready; empty where it has none yet."""
    ready = (c for c in status.conditions or [] if c.type == names.READY)
    return next(((c.reason, c.message) for c in ready), ("", ""))


def observe(facts: Facts) -> Observed:
    """Facts in, the picture out. Never raises: what cannot be read becomes `problems`."""
    meta = facts.body["metadata"]
    spec, problems = _spec(facts.body.get("spec") or {})
    uid = meta["uid"]
    jobs = [_job(body, facts.now) for body in facts.children.jobs if _of_an_attempt(body, uid)]
    return Observed(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=uid,
        generation=meta.get("generation", 1),
        now=facts.now,
        spec=spec,
        problems=problems,
        status=stored_status(facts.body),
        jobs={job.attempt: job for job in jobs},
        pods=tuple(_pod(p, facts) for p in facts.children.pods if _of_an_attempt(p, uid)),
        services=tuple(s for s in facts.children.services if _belongs(s, uid)),
        network_policies=tuple(p for p in facts.children.network_policies if _belongs(p, uid)),
        workloads=facts.children.workloads,
        served=facts.served,
        profile=facts.profiles.get(spec.profile) if spec else None,
        profile_names=tuple(sorted(facts.profiles)),
        refusal=facts.refusal,
        deleting="deletionTimestamp" in meta,
        live=facts.live if facts.live and facts.live.uid == uid else None,
        channel=facts.channel,
        listening_since=facts.listening_since,
        precedent=facts.precedent,
        objective=meta.get("annotations", {}).get(names.ANNOTATION_OBJECTIVE),
        leave=leave_of(facts.body),
        trace_id=facts.trace_id,
    )


def leave_of(body: Body) -> tuple[str, str] | None:
    """Reason and message, if a sweep wants this trial to save and leave."""
    text = body["metadata"].get("annotations", {}).get(names.ANNOTATION_LEAVE)
    if text is None:
        return None
    reason, _, message = text.partition(": ")
    return (reason, message) if reason in (names.REASON_PRUNED, names.REASON_SWEEP_ENDED) else None


def is_managed_here(body: Body) -> bool:
    """Whether a TrainingJob is for this operator; spec.managedBy may give it to another controller."""
    return (body.get("spec") or {}).get("managedBy") in (None, names.CONTROLLER)


def lagging_attempt(body: Body, children: Children) -> int | None:
    """An attempt whose Job is known to have ended, and fewer of its pods: they are worth a list of their own before it is judged.

    Jobs and pods come by different watches. A judgement without the last words of a pod would be final all the same.
    """
    uid = body["metadata"]["uid"]
    for job in children.jobs:
        if not (_of_an_attempt(job, uid) and {"Complete", "Failed"} & _conditions(job).keys()):
            continue
        if job["metadata"]["uid"] in {
            attempt.uid for attempt in stored_status(body).attempts or [] if attempt.end_time
        }:
            continue
        number = attempt_of(job)
        pods = (pod for pod in children.pods if _of_an_attempt(pod, uid) and attempt_of(pod) == number)
        ended = sum((pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") for pod in pods)
        if ended < job["spec"]["completions"]:
            return number
    return None


def _belongs(body: Body, uid: str) -> bool:
    """Ours by UID: an earlier job of the same name may still have children on their way out."""
    return bool(body["metadata"].get("labels", {}).get(names.LABEL_JOB_UID) == uid)


def _of_an_attempt(body: Body, uid: str) -> bool:
    """Ours, and numbered as we do: whoever may create pods may give them our labels, and write anything into them."""
    return _belongs(body, uid) and attempt_of(body) is not None and _number(body, INDEX_LABEL, "0") is not None


def attempt_of(body: Body) -> int | None:
    """Of a Job or a pod, by its label."""
    return _number(body, names.LABEL_ATTEMPT, "")


def _number(body: Body, label: str, default: str) -> int | None:
    text = body["metadata"].get("labels", {}).get(label, default)
    return int(text) if text.isascii() and text.isdecimal() else None


def _spec(raw: Mapping[str, Any]) -> tuple[TrainingJobSpec | None, tuple[str, ...]]:
    return _parsed(json.dumps(raw))


@lru_cache(maxsize=1000)
def _parsed(text: str) -> tuple[TrainingJobSpec | None, tuple[str, ...]]:
    """A spec hardly ever changes, and is looked at twenty times in a job's life. Nobody may change what is returned."""
    try:
        return TrainingJobSpec.from_wire(text), ()
    except ValidationError as error:
        return None, tuple(describe_errors(error, "spec"))


def stored_status(body: Body) -> TrainingJobStatus:
    """A TrainingJob's. What a newer version wrote and this one cannot read is passed over, field by field: the rest stands."""
    raw = dict(body.get("status") or {})
    while True:
        try:
            return TrainingJobStatus.model_validate_json(json.dumps(raw), extra="ignore")
        except ValidationError as error:
            for field in {fault["loc"][0] for fault in error.errors()}:
                del raw[str(field)]


def _conditions(body: Body) -> dict[str, Mapping[str, Any]]:
    found = (body.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in found if condition.get("status") == "True"}


def _job(body: Body, now: datetime) -> Job:
    meta, true = body["metadata"], _conditions(body)
    ended = next((kind for kind in ("Complete", "Failed") if kind in true), None)
    verdict = true.get(ended or "FailureTarget", {})
    created = datetime.fromisoformat(meta["creationTimestamp"])
    return Job(
        name=meta["name"],
        uid=meta["uid"],
        attempt=attempt_of(body) or 0,
        created_at=created,
        started_at=parse_time((body.get("status") or {}).get("startTime")),
        parallelism=(body.get("spec") or {}).get("parallelism"),
        suspended=bool((body.get("spec") or {}).get("suspend")),
        queue=meta.get("labels", {}).get(names.KUEUE_QUEUE),
        gang=meta.get("annotations", {}).get(names.ANNOTATION_GANG),
        digest=meta.get("annotations", {}).get(names.ANNOTATION_DIGEST),
        deleting="deletionTimestamp" in meta,
        failing="FailureTarget" in true,
        ended=ended,
        ended_at=_possible(verdict.get("lastTransitionTime"), created, now) if ended else None,
        reason=verdict.get("reason", ""),
        message=verdict.get("message", ""),
    )


def _pod(body: Body, facts: Facts) -> Pod:
    meta, status = body["metadata"], body.get("status") or {}
    true = _conditions(body)
    container: Mapping[str, Any] = next(
        (c for c in status.get("containerStatuses") or [] if c["name"] == MAIN_CONTAINER), {}
    )
    state = container.get("state") or {}
    terminated = _terminated(state.get("terminated"))
    created = parse_time(meta.get("creationTimestamp"))
    scheduled = true.get("PodScheduled", {}).get("lastTransitionTime")
    started = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        attempt=attempt_of(body) or 0,
        index=_number(body, INDEX_LABEL, "0") or 0,
        phase=status.get("phase", "Pending"),
        created_at=created,
        scheduled_at=scheduled and (_possible(scheduled, created, facts.now) or created),
        started_at=started and (_possible(started, created, facts.now) or created),
        node=(body.get("spec") or {}).get("nodeName"),
        deleting="deletionTimestamp" in meta,
        departed=meta["uid"] in facts.children.departed,
        disrupted=_disruption(true.get("DisruptionTarget"), status),
        unschedulable=_unschedulable(status),
        waiting=_waiting(state.get("waiting")),
        terminated=terminated,
    )


def _possible(text: str | None, created: datetime | None, now: datetime) -> datetime | None:
    """A time by the clock of a node or a controller; None if it cannot be, for that clock is wrong."""
    moment = parse_time(text)
    if moment is None or moment > now + SLACK or (created and moment < created - SLACK):
        return None
    return moment


def _disruption(condition: Mapping[str, Any] | None, status: Mapping[str, Any]) -> str | None:
    """Why the platform took the pod away; kubelet's own evictions say it in the pod's reason only."""
    if condition:
        return condition.get("message") or condition.get("reason") or "disrupted"
    if status.get("reason") in ("Evicted", "NodeLost", "Shutdown", "NodeShutdown", "Preempting", "Terminated"):
        return status.get("message") or str(status["reason"])
    return None


def _unschedulable(status: Mapping[str, Any]) -> str | None:
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") in ("Unschedulable", "SchedulingGated"):
            return str(condition.get("message") or condition["reason"])
    return None


def _waiting(state: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """A container that waits for something else than its turn."""
    if not state or state.get("reason") in (None, "ContainerCreating", "PodInitializing"):
        return None
    return state["reason"], state.get("message", "")


def _terminated(state: Mapping[str, Any] | None) -> Terminated | None:
    if not state:
        return None
    return Terminated(
        exit_code=state.get("exitCode", 1),
        reason=state.get("reason", ""),
        text=state.get("message", ""),
        finished_at=parse_time(state.get("finishedAt")),
    )
