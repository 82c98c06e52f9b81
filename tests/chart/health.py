"""What GitOps tools make of our objects, by their own code (tests/go/health), and statuses of every kind to ask about."""

import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from darkroom_api import names
from darkroom_api.report import Reason
from darkroom_operator.core.profile import Profile
from darkroom_operator.core.types import Refusal
from tests.chart.conftest import ROOT
from tests.core.sweep_world import SweepWorld
from tests.core.test_plan import running
from tests.core.world import World, message
from tests.tools import tool

SCRIPT = ROOT / "deploy/gitops/argocd/health.lua"
PIPELINE = ROOT / "deploy/gitops/flux/pipeline.yaml"


class Verdict(NamedTuple):
    """Of one object."""

    kstatus: str
    """Flux with `wait: true`, and Helm 4 with --wait."""
    flux: str
    """Flux with the expressions of pipeline.yaml."""
    argo: str


@dataclass(frozen=True)
class Judged:
    """An object with its verdict, and the words that Argo CD shows."""

    body: dict[str, Any]
    verdict: Verdict
    message: str


def judge(bodies: list[dict[str, Any]], kind: str = "TrainingJob") -> list[Judged]:
    """One run of the program for all."""
    documents = yaml.safe_load_all(PIPELINE.read_text())
    checks = {c["kind"]: c for document in documents for c in document["spec"].get("healthCheckExprs", [])}
    check = checks[kind]
    head = {"apiVersion": names.API_VERSION, "kind": kind}
    question = {"objects": [head | body for body in bodies], "script": SCRIPT.read_text(), "expressions": check}
    done = subprocess.run([tool("health")], input=json.dumps(question), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [
        Judged(body, Verdict(said["kstatus"], said["flux"], said["argo"]), said["message"])
        for body, said in zip(bodies, json.loads(done.stdout), strict=True)
    ]


# --- Lives that between them come through every state and every reason of a condition. ---


def _succeeds() -> World:
    world = running()
    for index in (0, 1):
        world.end("flowers-1", index, 0, message())
    return world


def _leaves_with(reason: Reason) -> Callable[[], World]:
    def live() -> World:
        world = running(numNodes=1)
        world.end("flowers-1", 0, 0, message(reason))
        return world

    return live


def _crashes(exit_code: int, **restart: Any) -> Callable[[], World]:
    def live() -> World:
        world = running(restart={"backoffSeconds": 10} | restart)
        world.end("flowers-1", 1, exit_code)
        world.settle()
        world.leave("flowers-1")
        return world

    return live


def _is_suspended() -> World:
    world = running()
    world.edit(suspend=True)
    world.settle()
    world.leave("flowers-1")
    return world


def _is_resumed() -> World:
    world = _is_suspended()
    world.settle()
    world.edit(suspend=False)
    return world


def _waits_for(**status: Any) -> Callable[[], World]:
    def live() -> World:
        world = World()
        world.settle()
        world.pods["flowers-1-0"]["status"] |= status
        return world

    return live


def _has_no_pods() -> World:
    world = World()
    world.settle()
    world.pods.clear()
    world.wait(11)
    return world


def _is_late(**spec: Any) -> Callable[[], World]:
    def live() -> World:
        world = running(**spec) if "activeDeadlineSeconds" in spec else World(**spec)
        world.settle()
        world.wait(61)
        world.settle()
        world.leave("flowers-1")
        return world

    return live


def _is_refused(code: int) -> Callable[[], World]:
    def live() -> World:
        world = World()
        world.refusal = Refusal("Job", "flowers-1", code, "no")
        return world

    return live


def _follows_its_profile() -> World:
    world = World()
    world.settle()
    world.profiles = {"default": Profile(image="trainer:2")}
    return world


def _is_priced(**budget: Any) -> Callable[[], World]:
    def live() -> World:
        world = running(budget=budget)
        world.wait(7200)
        world.settle()
        world.leave("flowers-1", 0)
        return world

    return live


def _waits_in_a_queue(**spec: Any) -> World:
    world = World(scheduling={"queue": "vision"}, **spec)
    world.served = {"Kueue": "kueue.x-k8s.io/v1beta2"}
    world.settle()
    return world


def _is_preempted() -> World:
    world = _waits_in_a_queue()
    world.admit("flowers-1")
    world.run("flowers-1")
    world.settle()
    world.preempt("flowers-1", "for somebody else")
    world.settle()
    world.leave("flowers-1")
    return world


def _hangs() -> World:
    """A container that goes on reporting, but no new step."""
    world = running(vision=None, container={"image": "mine:1"}, numNodes=1, stallSeconds=60)
    for _ in range(8):
        world.report(step=1)
        world.settle()
        world.wait(10)
    world.leave("flowers-1", 75)
    return world


def _waiting_container(reason: str) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": reason, "message": "no"}}}]}


LIVES: dict[str, Callable[[], World]] = {
    "succeeds": _succeeds,
    "reaches its target": _leaves_with(Reason.TARGET_REACHED),
    "is pruned": _leaves_with(Reason.PRUNED),
    "restarts": _crashes(70),
    "has no restart left": _crashes(70, maxRestarts=0),
    "has bad data": _crashes(65),
    "has a bad configuration": _crashes(78),
    "meets a rule": _crashes(70, rules=[{"exitCodes": [70], "action": "Fail"}]),
    "is suspended": _is_suspended,
    "is resumed": _is_resumed,
    "waits for a node": _waits_for(
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}]
    ),
    "waits for an image": _waits_for(**_waiting_container("ImagePullBackOff")),
    "waits for a Secret": _waits_for(**_waiting_container("CreateContainerConfigError")),
    "gets no pods": _has_no_pods,
    "waits in a queue": _waits_in_a_queue,
    "finds no queue": lambda: World(scheduling={"queue": "vision"}),
    "finds no gang scheduler": lambda: World(scheduling={"gang": "Volcano"}),
    "is preempted": _is_preempted,
    "hangs": _hangs,
    "is late to start": _is_late(startupDeadlineSeconds=60),
    "is late to end": _is_late(activeDeadlineSeconds=60),
    "is refused": _is_refused(403),
    "finds its name taken": _is_refused(409),
    "follows its profile": _follows_its_profile,
    "has spent its budget": _is_priced(maxDuration="1h"),
    "has no profile": lambda: World(profile="none"),
    "is too large": lambda: World(profiles={"default": Profile(image="trainer:1", max_nodes=1)}),
    "is too important": lambda: World(scheduling={"priorityClassName": "urgent"}),
    "is invalid": lambda: World(numNodes="two"),
}


def recorded() -> Iterator[dict[str, Any]]:
    """The object as it was first, and after every write of a status, in each of the lives."""
    yield World().body
    for life in LIVES.values():
        world = life()
        world.settle()
        for status in world.patches:
            generation = status["observedGeneration"]
            metadata = world.body["metadata"] | {"generation": generation}
            yield {"metadata": metadata, "spec": world.body["spec"], "status": copy.deepcopy(status)}


# --- Lives of sweeps ---


def _searches(**spec: Any) -> SweepWorld:
    world = SweepWorld(**spec)
    world.settle()
    return world


def _ends(**spec: Any) -> SweepWorld:
    world = _searches(**spec)
    world.run_out()
    return world


def _sweep_is_suspended(*, gone: bool) -> SweepWorld:
    world = _searches()
    world.edit(suspend=True)
    world.settle()
    for name in world.running if gone else ():
        world.jobs[name]["status"] |= {"state": "Suspended"}
    world.settle()
    return world


def _refits() -> SweepWorld:
    world = _searches(refit={})
    for _ in range(30):
        if world.status["state"] == "Refitting":
            return world
        for name in world.running:
            world.complete(name)
        world.settle()
    raise AssertionError("no refit")


def _fails() -> SweepWorld:
    world = _searches(stopping={"maxTrials": 9, "maxFailedTrials": 0})
    for name in world.running:
        world.end(name, "Failed", "SoftwareError", "no")
    world.settle()
    return world


def _spends_its_money() -> SweepWorld:
    world = _searches(stopping={"maxTrials": 9, "maxCost": "1"}, parallelism=2)
    world.complete(world.running[0], cost="5 USD")
    world.settle()
    return world


def _is_broken() -> SweepWorld:
    world = SweepWorld()
    world.body["spec"] = {}
    world.settle()
    return world


def sweeps() -> list[dict[str, Any]]:
    """Sweeps in every state."""
    unseen = copy.deepcopy(SweepWorld().body) | {"status": {"observedGeneration": -1}}
    worlds = [
        *(_searches(), _ends(), _fails(), _refits(), _spends_its_money(), _is_broken()),
        *(_sweep_is_suspended(gone=gone) for gone in (False, True)),
    ]
    return [unseen, *(world.body for world in worlds)]
