"""A TuningSweep and its TrainingJobs for the pure core: plans are carried out, and trials end as a test says."""

import copy
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from darkroom_api import names
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_operator.core.conditions import timestamp
from darkroom_operator.core.tuning_sweep.history import SweepFacts
from darkroom_operator.core.tuning_sweep.ledger import Page, read_page
from darkroom_operator.core.tuning_sweep.plan import plan
from darkroom_operator.core.types import Event, Plan, Refusal

START = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = [
    {"name": "lr", "env": "LR", "double": {"min": "0.0001", "max": "0.1", "scale": "Log"}},
    {"name": "width", "env": "WIDTH", "int": {"min": 1, "max": 64}},
]
SPEC: dict[str, Any] = {
    "objectives": [{"metric": "val/top1"}],
    "parameters": SPACE,
    "algorithm": {"name": "Random", "seed": 7},
    "stopping": {"maxTrials": 6},
    "parallelism": 2,
    "trialTemplate": {"spec": {"container": {"image": "mine:1"}}},
}


def spec_of(**changes: Any) -> TuningSweepSpec:
    """SPEC with other values, as the operator reads it."""
    return TuningSweepSpec.from_wire(json.dumps({**SPEC, **changes}))


class SweepWorld:
    """One sweep. `score` says what a trial reaches."""

    def __init__(self, score: Callable[[Mapping[str, str]], float] = lambda p: float(p["lr"]), **spec: Any) -> None:
        self.now = START
        self.score = score
        self.body: dict[str, Any] = {
            "metadata": {"name": "search", "namespace": "vision", "uid": "uid-of-search", "generation": 1},
            "spec": {key: value for key, value in {**SPEC, **spec}.items() if value is not None},
        }
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pages: dict[str, dict[str, Any]] = {}
        """ConfigMaps by name."""
        self.read: dict[str, Page] = {}
        """Those that the operator has in its memory."""
        self.made: list[str] = []
        self.events: list[Event] = []
        self.refusal: Refusal | None = None
        self.unseen: set[str] = set()
        """Jobs that the cache does not show yet."""

    # --- the shell's part ---

    def facts(self) -> SweepFacts:
        jobs = tuple(job for name, job in self.jobs.items() if name not in self.unseen)
        listed = {entry["name"] for entry in self.status.get("ledgerPages", [])}
        for name in listed & self.pages.keys() - self.read.keys():
            self.read[name] = read_page(self.pages[name])
        gone = frozenset(listed - self.pages.keys())
        body, jobs = copy.deepcopy((self.body, jobs))
        return SweepFacts(body, jobs, self.now, self.refusal, tuple(self.read.values()), gone)

    def restart(self) -> None:
        """The operator forgets what it has read."""
        self.read = {}

    def look(self) -> Plan:
        decision = plan(self.facts())
        for write in self.writes(decision):
            write()
        return decision

    def writes(self, decision: Plan) -> list[Callable[[], Any]]:
        """The writes of a plan in the shell's order; a crash is to call only the first few."""
        steps: list[Callable[[], Any]] = [lambda o=o: self._create(o) for o in decision.create]
        steps += [lambda p=p: self._patch(p.name, p.uid, p.change) for p in decision.patch]
        steps += [lambda d=d: self._delete(d.name, d.uid) for d in decision.delete]
        status = decision.status
        if status is not None and status != self.body.get("status"):
            steps.append(lambda: self.body.update(status=copy.deepcopy(status)))
        return [*steps, *(lambda e=e: self.events.append(e) for e in decision.events)]

    def settle(self, limit: int = 30) -> None:
        """Look until nothing changes; a hot loop fails the test."""
        for _ in range(limit):
            before = copy.deepcopy((self.body, self.jobs))
            decision = self.look()
            if before == (self.body, self.jobs) and decision.requeue_after != 0.0:
                return
        raise AssertionError("the plan does not come to rest")

    def _create(self, desired: Any) -> None:
        name = desired["metadata"]["name"]
        if desired["kind"] == "ConfigMap":
            self.read[name] = read_page(self.pages.setdefault(name, copy.deepcopy(desired)))
            return
        self.unseen.discard(name)  # the answer, or "already exists", brings it into the cache
        if name in self.jobs:
            return
        stored = copy.deepcopy(desired)
        stored["metadata"] |= {"uid": f"uid-{len(self.made)}", "creationTimestamp": timestamp(self.now)}
        stored["status"] = {"state": "Running"}
        self.jobs[name] = stored
        self.made.append(name)

    def _patch(self, name: str, uid: str, change: Any) -> None:
        job = self.jobs[name]
        assert job["metadata"]["uid"] == uid
        job["metadata"]["annotations"].update(change.get("metadata", {}).get("annotations", {}))
        job["spec"].update(change.get("spec", {}))
        if job["spec"].get("suspend"):
            job["status"]["state"] = "Suspended"

    def _delete(self, name: str, uid: str) -> None:
        assert self.jobs.pop(name)["metadata"]["uid"] == uid

    # --- the cluster's part ---

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def running(self) -> list[str]:
        return [name for name, job in self.jobs.items() if not job["status"].get("finished")]

    def parameters(self, name: str) -> dict[str, str]:
        return json.loads(self.jobs[name]["metadata"]["annotations"].get(names.ANNOTATION_PARAMETERS, "{}"))

    def told_to_leave(self, name: str) -> str:
        return self.jobs[name]["metadata"]["annotations"].get(names.ANNOTATION_LEAVE, "")

    def report(self, name: str, epoch: int, value: float, **more: Any) -> None:
        """A live report has reached the trial's status."""
        point = {"epoch": epoch, "value": f"{value:.6f}", **more}
        self.jobs[name]["status"].setdefault("curve", []).append(point)

    def complete(self, name: str, value: float | None = None, **fields: Any) -> None:
        """The trial ends well, with what it scores."""
        score = self.score(self.parameters(name)) if value is None else value
        metrics = fields.pop("metrics", {"val/top1": f"{score:.9f}"})
        told = [{"name": metric, "value": text} for metric, text in metrics.items()]
        self.end(name, "Complete", "Completed", progress={"metrics": told}, **fields)

    def end(self, name: str, state: str, reason: str, message: str = "", **fields: Any) -> None:
        ready = {"type": "Ready", "status": "True", "observedGeneration": 1, "reason": reason, "message": message}
        self.jobs[name]["status"] |= {
            "state": state,
            "finished": True,
            "completionTime": timestamp(self.now),
            "conditions": [ready | {"lastTransitionTime": timestamp(self.now)}],
            **fields,
        }

    def run_out(self, limit: int = 500) -> None:
        """Every trial runs to its end, until the sweep is over."""
        for _ in range(limit):
            self.settle()
            if self.status.get("finished"):
                return
            self.wait(60)
            for name in self.running[:1]:
                if left := self.told_to_leave(name):
                    self.end(name, "Complete", left.partition(": ")[0], left)
                else:
                    self.complete(name)
        raise AssertionError("the sweep does not end")

    # --- what a user sees ---

    @property
    def status(self) -> dict[str, Any]:
        return self.body.get("status", {})

    @property
    def ledger(self) -> list[dict[str, Any]]:
        paged = [
            row for _, page in sorted(self.pages.items()) for row in map(json.loads, page["data"]["rows"].splitlines())
        ]
        return paged + [row for row in self.status.get("ledger", []) if row["number"] >= len(paged)]

    @property
    def ready(self) -> tuple[str, str]:
        return next(((c["reason"], c["message"]) for c in self.status["conditions"] if c["type"] == "Ready"), ("", ""))

    def edit(self, **spec: Any) -> None:
        self.body["spec"] |= spec
        self.body["metadata"]["generation"] += 1
