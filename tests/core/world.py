"""A small world for the pure core: it carries plans out and plays the Job controller, scheduler and kubelet by the rules.

It is a model for property tests, not a stand-in for the API server; tests/operator and tests/cluster have the real one.
"""

import copy
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from darkroom_api import names
from darkroom_api.crd import UNSEEN
from darkroom_api.report import LiveReport, Reason, TerminationMessage
from darkroom_operator.core.conditions import timestamp
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.training_job.plan import plan
from darkroom_operator.core.trimming import trimmed
from darkroom_operator.core.types import Channel, Children, Event, Facts, Live, Plan, Precedent, Refusal

START = datetime(2026, 1, 1, tzinfo=UTC)
VISION = {"data": {"claim": "digits"}, "model": {"architecture": "resnet18"}}
PROFILES = {"default": Profile(image="trainer:1", resources={"cpu": "1"}, price_per_node_hour="3.6")}
INDEX = "batch.kubernetes.io/job-completion-index"


def message(reason: Reason = Reason.COMPLETED, exit_code: int = 0, **fields: Any) -> str:
    """A termination message as the trainer writes it."""
    return TerminationMessage(reason=reason, exit_code=exit_code, **fields).encode()


class World:
    """One TrainingJob and its children."""

    def __init__(self, profiles: dict[str, Profile] = PROFILES, **spec: Any) -> None:
        spec = {"vision": VISION, "numNodes": 2} | spec
        self.now = START
        self.profiles = profiles
        self.body: dict[str, Any] = {
            "metadata": {"name": "flowers", "namespace": "vision", "uid": "uid-of-flowers", "generation": 1},
            "spec": {key: value for key, value in spec.items() if value is not None},
            "status": dict(UNSEEN),
        }
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.departed: set[str] = set()
        self.services: dict[str, dict[str, Any]] = {}
        self.network_policies: dict[str, dict[str, Any]] = {}
        self.workloads: dict[str, dict[str, Any]] = {}
        self.pod_groups: dict[str, dict[str, Any]] = {}
        self.served: dict[str, str] = {}
        self.precedent: Precedent | None = None
        self.refusal: Refusal | None = None
        self.live: Live | None = None
        self.channel: Channel | None = None
        self.listening_since: datetime | None = START
        self.events: list[Event] = []
        self.patches: list[dict[str, Any]] = []
        self.created: list[str] = []
        self.gone = False
        self._uids = itertools.count(1)

    # --- the shell's part ---

    def facts(self) -> Facts:
        """As the caches have it: trimmed to what they keep."""
        children = Children(
            jobs=tuple(trimmed(job, "Job") for job in self.jobs.values()),
            pods=tuple(trimmed(pod, "Pod") for pod in self.pods.values()),
            services=tuple(self.services.values()),
            network_policies=tuple(self.network_policies.values()),
            workloads=tuple(self.workloads.values()),
            departed=frozenset(self.departed),
        )
        return Facts(
            self.body,
            children,
            self.now,
            self.profiles,
            self.refusal,
            self.live,
            self.channel,
            self.listening_since,
            self.served,
            self.precedent,
        )

    def look(self) -> Plan:
        """One plan, carried out."""
        decision = plan(copy.deepcopy(self.facts()))
        for write in self.writes(decision):
            write()
        return decision

    def writes(self, decision: Plan) -> list[Any]:
        """The writes of a plan in the shell's order, each to be called; a crash is to call only the first few."""
        steps: list[Any] = [lambda o=o: self._store(o) for o in (*decision.apply, *decision.create)]
        steps += [lambda d=d: self._delete(d.kind, d.name, d.uid) for d in decision.delete]
        status = decision.status
        if status is not None and status != self.body.get("status"):
            steps.append(lambda: self._patch(status))
        steps += [lambda e=e: self.events.append(e) for e in decision.events]
        return steps

    def settle(self, limit: int = 20) -> None:
        """Look until nothing changes; a hot loop fails the test."""
        for _ in range(limit):
            before = (copy.deepcopy(self.body), copy.deepcopy(self.jobs), copy.deepcopy(self.services), self.gone)
            decision = self.look()
            if before == (self.body, self.jobs, self.services, self.gone) and decision.requeue_after != 0.0:
                return
        raise AssertionError("the plan does not come to rest")

    def _store(self, desired: dict[str, Any]) -> None:
        shelves = {
            "Job": self.jobs,
            "Service": self.services,
            "NetworkPolicy": self.network_policies,
            "PodGroup": self.pod_groups,
        }
        shelf = shelves[desired["kind"]]
        name = desired["metadata"]["name"]
        if desired["kind"] in ("Job", "PodGroup") and name in shelf:
            return  # "already exists", and ours
        stored = copy.deepcopy(desired)
        stored["metadata"] |= {"uid": f"uid-{next(self._uids)}", "creationTimestamp": timestamp(self.now)}
        shelf[name] = stored
        self.created.append(f"{desired['kind']}/{name}")
        if desired["kind"] != "Job":
            return
        if names.KUEUE_QUEUE in stored["metadata"]["labels"]:
            stored["spec"]["suspend"] = True
            self.hold(name, "insufficient unused quota for cpu in flavor default, 1 more needed")
        else:
            self.admit(name)

    # --- Kueue's part ---

    def hold(self, job: str, message: str, *, reason: str = "Pending") -> None:
        """Kueue looks at a Job and does not let it start."""
        self._say_of(job, {"type": "QuotaReserved", "status": "False", "reason": reason, "message": message})

    def admit(self, job: str) -> None:
        """The Job may start: the Job controller makes its pods."""
        body = self.jobs[job]
        body["spec"].pop("suspend", None)
        body.setdefault("status", {"conditions": []})["startTime"] = timestamp(self.now)
        self._make_pods(body)

    def preempt(self, job: str, message: str) -> None:
        """Kueue takes the nodes back: the Job is suspended, and its pods are told to go."""
        body = self.jobs[job]
        body["spec"]["suspend"] = True
        body["status"].pop("startTime", None)
        for pod in self.pods_of(job):
            pod["metadata"]["deletionTimestamp"] = timestamp(self.now)
        self._say_of(job, {"type": "Evicted", "status": "True", "reason": "Preempted", "message": message})

    def _say_of(self, job: str, condition: dict[str, str]) -> None:
        owner = {"uid": self.jobs[job]["metadata"]["uid"], "kind": "Job"}
        meta = {"creationTimestamp": timestamp(self.now), "ownerReferences": [owner]}
        self.workloads[job] = {"metadata": meta, "status": {"conditions": [condition]}}

    def _make_pods(self, job: dict[str, Any]) -> None:
        for index in range(job["spec"]["completions"]):
            self._make_pod(job, index)

    def _make_pod(self, job: dict[str, Any], index: int) -> None:
        meta = {
            "name": f"{job['metadata']['name']}-{index}",
            "uid": f"uid-{next(self._uids)}",
            "creationTimestamp": timestamp(self.now),
            "labels": job["spec"]["template"]["metadata"]["labels"] | {INDEX: str(index)},
        }
        if former := self.pods.get(meta["name"]):
            self.pods[f"{meta['name']}-{former['metadata']['uid']}"] = former
        self.pods[meta["name"]] = {"metadata": meta, "spec": {}, "status": {"phase": "Pending"}}

    def _delete(self, kind: str, name: str, uid: str) -> None:
        if kind == "TrainingJob":
            self.gone = True
        elif kind == "NetworkPolicy":
            assert self.network_policies.pop(name)["metadata"]["uid"] == uid
        elif kind == "Job" and name in self.jobs:
            assert self.jobs[name]["metadata"]["uid"] == uid
            self.jobs[name]["metadata"]["deletionTimestamp"] = timestamp(self.now)
            for pod in self.pods_of(name):
                if pod["status"]["phase"] in ("Pending", "Running"):
                    pod["metadata"]["deletionTimestamp"] = timestamp(self.now)
            self._collect(name)

    def _patch(self, status: dict[str, Any]) -> None:
        self.patches.append(status)
        self.body["status"] = copy.deepcopy(status)

    def report(self, attempt: int = 1, **fields: Any) -> None:
        """A live report comes in."""
        sequence = self.live.report.sequence + 1 if self.live else 1
        report = LiveReport(sequence=sequence, **({"step": 10, "steps": 100, "epochs": 10} | fields))
        self.live = Live(self.body["metadata"]["uid"], attempt, self.now, report)

    # --- the cluster's part ---

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def pods_of(self, job: str) -> list[dict[str, Any]]:
        return [
            pod
            for pod in self.pods.values()
            if pod["metadata"]["name"].rsplit("-", 1)[0] == job and pod["metadata"]["uid"] not in self.departed
        ]

    def run(self, job: str, *indices: int, node: str = "worker") -> None:
        """The scheduler binds the pods, kubelet starts them."""
        for pod in self.pods_of(job):
            if not indices or int(pod["metadata"]["labels"][INDEX]) in indices:
                pod["spec"]["nodeName"] = node
                pod["status"] = {
                    "phase": "Running",
                    "conditions": [self._condition("PodScheduled")],
                    "containerStatuses": [
                        {"name": "trainer", "state": {"running": {"startedAt": timestamp(self.now)}}}
                    ],
                }

    def end(self, job: str, index: int, exit_code: int, text: str = "", *, reason: str = "") -> None:
        """A container ends; the Job controller reacts."""
        pod = self.pods[f"{job}-{index}"]
        started = pod["status"].get("containerStatuses", [{}])[0].get("state", {}).get("running", {}).get("startedAt")
        ended = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": text,
            "startedAt": started or timestamp(self.now),
            "finishedAt": timestamp(self.now),
        }
        pod["status"]["phase"] = "Failed" if exit_code else "Succeeded"
        pod["status"]["containerStatuses"] = [{"name": "trainer", "state": {"terminated": ended}}]
        self._control(job)

    def disrupt(self, job: str, index: int, text: str = "preempted", exit_code: int = 143) -> None:
        """Eviction: the condition first, then the container's end."""
        status = self.pods[f"{job}-{index}"]["status"]
        status["conditions"] = [*status.get("conditions", []), self._condition("DisruptionTarget", message=text)]
        self.end(job, index, exit_code)

    def leave(self, job: str, exit_code: int = 75) -> None:
        """Pods that were told to go, go."""
        for pod in self.pods_of(job):
            if "deletionTimestamp" in pod["metadata"] and pod["status"]["phase"] in ("Pending", "Running"):
                self.end(job, int(pod["metadata"]["labels"][INDEX]), exit_code)

    def _control(self, job: str) -> None:
        """The Job controller: backoffLimit 0, podReplacementPolicy Failed; Failed only when no pod is left."""
        body = self.jobs.get(job)
        if body is None:
            return
        status = body.setdefault("status", {"conditions": []})
        if "podFailurePolicy" in body["spec"]:
            self._replace(body)
        phases = [pod["status"]["phase"] for pod in self.pods_of(job)]
        kinds = {condition["type"] for condition in status["conditions"]}
        if "Failed" in phases and "FailureTarget" not in kinds and "deletionTimestamp" not in body["metadata"]:
            status["conditions"].append(self._condition("FailureTarget", reason="BackoffLimitExceeded"))
            for pod in self.pods_of(job):
                if pod["status"]["phase"] in ("Pending", "Running"):
                    pod["metadata"]["deletionTimestamp"] = timestamp(self.now)
        if self._has_succeeded(body) and "Failed" not in kinds:
            self._finish(body)
        elif all(phase == "Succeeded" for phase in phases) and len(phases) == body["spec"]["completions"]:
            status["conditions"].append(self._condition("Complete", reason="CompletionsReached"))
        elif "Failed" in phases and not {"Pending", "Running"} & set(phases) and "Failed" not in kinds:
            status["conditions"].append(self._condition("Failed", reason="BackoffLimitExceeded"))
        for pod in self.pods_of(job):
            if "deletionTimestamp" in pod["metadata"] and pod["status"]["phase"] in ("Succeeded", "Failed"):
                self.departed.add(pod["metadata"]["uid"])
        self._collect(job)

    def _has_succeeded(self, body: dict[str, Any]) -> bool:
        """By the success policy: node 0 is done."""
        first = self.pods.get(f"{body['metadata']['name']}-0", {"status": {}})["status"].get("phase")
        return "successPolicy" in body["spec"] and first == "Succeeded" and "deletionTimestamp" not in body["metadata"]

    def _finish(self, body: dict[str, Any]) -> None:
        """Pods that still run are told to leave, those that never did go; Complete once there is none."""
        pods = self.pods_of(body["metadata"]["name"])
        for pod in pods:
            if pod["status"]["phase"] == "Pending":
                self.departed.add(pod["metadata"]["uid"])
            elif pod["status"]["phase"] == "Running":
                pod["metadata"]["deletionTimestamp"] = timestamp(self.now)
        if not any(pod["status"]["phase"] == "Running" for pod in pods):
            body["status"]["conditions"].append(self._condition("Complete", reason="SuccessPolicy"))

    def _replace(self, body: dict[str, Any]) -> None:
        """By the pod failure policy: pods that were taken away or left with 75 are made again, in their Job's time."""
        ended = {condition["type"] for condition in body["status"]["conditions"]}
        for pod in self.pods_of(body["metadata"]["name"]):
            if pod["status"]["phase"] != "Failed":
                continue
            (container,) = pod["status"]["containerStatuses"]
            taken = any(c["type"] == "DisruptionTarget" for c in pod["status"].get("conditions", []))
            if taken or container["state"]["terminated"]["exitCode"] == 75:
                self.departed.add(pod["metadata"]["uid"])
                if not ended and not self._has_succeeded(body) and "deletionTimestamp" not in body["metadata"]:
                    self._make_pod(body, int(pod["metadata"]["labels"][INDEX]))

    def _collect(self, job: str) -> None:
        """Foreground deletion: the Job goes after its pods."""
        if "deletionTimestamp" not in self.jobs.get(job, {"metadata": {}})["metadata"]:
            return
        left = self.pods_of(job)
        if any(pod["status"]["phase"] in ("Pending", "Running") for pod in left):
            return
        self.departed |= {pod["metadata"]["uid"] for pod in left}
        del self.jobs[job]

    def _condition(self, kind: str, **fields: str) -> dict[str, str]:
        return {"type": kind, "status": "True", "lastTransitionTime": timestamp(self.now)} | fields

    # --- what a user sees ---

    @property
    def status(self) -> dict[str, Any]:
        return self.body.get("status", {})

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        for condition in self.status.get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "absent", ""

    def edit(self, **spec: Any) -> None:
        """A user's edit of the spec."""
        self.body["spec"] |= spec
        self.body["metadata"]["generation"] += 1

    @property
    def ready_message(self) -> str:
        return next(c["message"] for c in self.status["conditions"] if c["type"] == names.READY)
