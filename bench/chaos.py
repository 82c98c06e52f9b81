"""A kill-anything hour: jobs and sweeps run on two real nodes while whatever there is, is killed at random.

`make bench BENCH=chaos`, for CHAOS_SECONDS (3,600), drawn from CHAOS_SEED. Half of that time in, the API server is away for five
minutes, if there is room for that. At the end everything comes back, what was begun ends, and bench/invariants.py judges. The
operators are processes here, started again when they are dead, as kubelet does.
"""

import json
import os
import random
import signal
import sys
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.invariants import violations
from bench.stage import stage
from darkroom_api.report import Metric, Reason, TerminationMessage
from localcluster import Cluster, images
from tests.kube import Kube, Refused
from tests.operator_process import OperatorProcess

SPACE = "chaos"
AT_ONCE = 6
OUTAGE_SECONDS = 300.0
SETTLE_SECONDS = 600.0
Body = dict[str, Any]


def run() -> dict[str, Any]:
    """Findings; the process fails if an invariant was broken."""
    seconds, seed = float(os.environ.get("CHAOS_SECONDS", "3600")), int(os.environ.get("CHAOS_SEED", "1"))
    with stage("real:2", audit=True) as (cluster, kube, folder):
        cluster.load(images.busybox_archive())
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        chaos = Chaos(cluster, kube, folder, random.Random(seed))  # noqa: S311 - reproducible, not secret
        try:
            findings = chaos.rage(seconds)
        finally:
            chaos.close()
    if findings["violations"]:
        sys.exit(json.dumps(findings, indent=1))
    return findings


class Chaos:
    """What runs, and what happens to it."""

    def __init__(self, cluster: Cluster, kube: Kube, folder: Path, dice: random.Random) -> None:
        self.cluster, self.kube, self.dice = cluster, kube, dice
        self.happened: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self._done = threading.Event()
        self.operators = [self._operator(folder, name) for name in ("a", "b")]
        self._keepers = [threading.Thread(target=self._keep, args=(operator,)) for operator in self.operators]

    def _operator(self, folder: Path, name: str) -> OperatorProcess:
        environment = {"DARKROOM_LEASE": "default/darkroom", "DARKROOM_DISCOVERY_SECONDS": "5"}
        profiles = folder / "profiles.yaml"
        return OperatorProcess(self.cluster.kubeconfig, profiles, folder / f"{name}.log", **environment)

    def rage(self, seconds: float) -> dict[str, Any]:
        """Begin, break things for so long, let it settle, judge."""
        for keeper in self._keepers:
            keeper.start()
        began, outage = time.monotonic(), seconds >= 4 * OUTAGE_SECONDS
        while (passed := time.monotonic() - began) < seconds:
            self._feed()
            if outage and passed > seconds / 2:
                self._away("kube-apiserver", OUTAGE_SECONDS)
                outage = False
                continue
            self._strike()
            time.sleep(self.dice.uniform(3, 12))
        settled = self._settle()
        return {"seconds": round(seconds), "settled_after_seconds": settled} | self._judge()

    def close(self) -> None:
        """End the operators for good."""
        self._done.set()
        for keeper in self._keepers:
            keeper.join()

    # --- What runs ---

    def _feed(self) -> None:
        """Keep AT_ONCE jobs and one sweep going."""
        jobs = [body for body in self._list("TrainingJob") if "darkroom.dev/tuning-sweep" not in _labels(body)]
        running = sum(not body.get("status", {}).get("finished") for body in jobs)
        for _ in range(AT_ONCE - running):
            self._create(_job(f"job-{self.made['TrainingJob']:05d}", self.dice))
        if all(body.get("status", {}).get("finished") for body in self._list("TuningSweep")):
            self._create(_sweep(f"sweep-{self.made['TuningSweep']:03d}"))

    def _create(self, body: Body) -> None:
        kind = body["kind"]
        if _tried(lambda: self.kube.create(body, SPACE)) or self._get(kind, body["metadata"]["name"]):
            self.made[kind] += 1

    def _get(self, kind: str, name: str) -> Body | None:
        return _tried(lambda: self.kube.get(kind, SPACE, name))

    def _list(self, kind: str) -> list[Body]:
        """Of an API server that may be away: then once it is back."""
        while (found := _tried(lambda: {"items": self.kube.list(kind, SPACE)})) is None:
            time.sleep(0.5)
        return found["items"]

    def _keep(self, operator: OperatorProcess) -> None:
        while not self._done.wait(1.0):
            operator.keep_alive()
        operator.kill()

    # --- What happens to it ---

    def _strike(self) -> None:
        blows: dict[str, tuple[int, Callable[[], None]]] = {
            "operator killed": (6, lambda: self.dice.choice(self.operators).kill()),
            "operator paused": (2, self._pause_operator),
            "API server killed": (2, lambda: self._away("kube-apiserver", self.dice.uniform(0, 15))),
            "etcd killed": (2, lambda: self._away("etcd", self.dice.uniform(0, 8))),
            "controller manager killed": (2, lambda: self._away("kube-controller-manager", self.dice.uniform(0, 15))),
            "scheduler killed": (1, lambda: self._away("kube-scheduler", self.dice.uniform(0, 10))),
            "node lost": (1, self._lose_node),
            "pod deleted": (3, lambda: self._delete("Pod")),
            "pod deleted by force": (2, lambda: self._delete("Pod", gracePeriodSeconds=0)),
            "pod evicted": (3, self._evict),
            "Job deleted": (1, lambda: self._delete("Job")),
        }
        name = self.dice.choices(list(blows), [weight for weight, _ in blows.values()])[0]
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        blows[name][1]()
        self.happened[name] += 1

    def _away(self, component: str, seconds: float) -> None:
        self.cluster.kill(component)
        time.sleep(seconds)
        self.cluster.revive(component)

    def _pause_operator(self) -> None:
        operator = self.dice.choice(self.operators)
        if operator.process and operator.process.poll() is None:
            operator.process.send_signal(signal.SIGSTOP)
            time.sleep(self.dice.uniform(2, 25))
            operator.process.send_signal(signal.SIGCONT)

    def _lose_node(self) -> None:
        node = self.dice.choice(self.cluster.node_names)
        self.cluster.stop_node(node)
        time.sleep(self.dice.uniform(1, 40))
        self.cluster.start_node(node)

    def _victim(self, kind: str) -> str | None:
        phases = ("Pending", "Running")
        found = [b for b in self._list(kind) if kind != "Pod" or b["status"]["phase"] in phases]
        alive = [b["metadata"]["name"] for b in found if kind == "Pod" or not b.get("status", {}).get("conditions")]
        return self.dice.choice(alive) if alive else None

    def _delete(self, kind: str, **options: Any) -> None:
        if name := self._victim(kind):
            _tried(lambda: self.kube.delete(kind, SPACE, name, **options))

    def _evict(self) -> None:
        if name := self._victim("Pod"):
            meta = {"name": name, "namespace": SPACE}
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
            _tried(lambda: self.kube.request("POST", Kube.path("Pod", SPACE, name) + "/eviction", body))

    # --- What became of it ---

    def _settle(self) -> float:
        """Seconds until everything has ended, or all that there is time for."""
        began = time.monotonic()
        while time.monotonic() - began < SETTLE_SECONDS:
            bodies = [*self._list("TrainingJob"), *self._list("TuningSweep")]
            if all(body.get("status", {}).get("finished") for body in bodies):
                break
            time.sleep(1.0)
        return round(time.monotonic() - began, 1)

    def _judge(self) -> dict[str, Any]:
        jobs, sweeps = self._list("TrainingJob"), self._list("TuningSweep")
        attempts = [a for body in jobs for a in body.get("status", {}).get("attempts", [])]
        logs = "".join(operator.log.read_text() for operator in self.operators)
        return {
            "happened": dict(self.happened),
            "operator_starts": sum(operator.starts for operator in self.operators),
            "jobs": len(jobs),
            "sweeps": len(sweeps),
            "attempts": dict(Counter(f"{a['result']}, {a.get('reason', '')}" for a in attempts)),
            "violations": violations(
                self.made, jobs, sweeps, self._list("Pod"), _creations(self.cluster.audit_log), logs
            ),
        }


def _creations(audit_log: Path) -> Counter[str]:
    """How often the API server created each Job, by its audit log."""
    created: Counter[str] = Counter()
    for line in audit_log.read_text().splitlines():
        if '"verb":"create"' not in line or '"resource":"jobs"' not in line:
            continue
        event = json.loads(line)
        if event["responseStatus"]["code"] == 201 and event["objectRef"].get("namespace") == SPACE:
            created[event["objectRef"]["name"]] += 1
    return created


def _labels(body: Body) -> Body:
    return body["metadata"].get("labels", {})


def _tried(call: Callable[[], Any]) -> Any:
    """The answer; None if there was none, or a no."""
    try:
        return call() or {}
    except (Refused, urllib.error.URLError, OSError, ValueError):
        return None


def _job(name: str, dice: random.Random) -> Body:
    """Works for a while; every third one crashes in its first attempt."""
    crash = "[ $DARKROOM_ATTEMPT -gt 1 ] || exit 70;" if dice.random() < 1 / 3 else ""
    script = f"{_work(dice.randint(5, 40))}; {crash} exit 0"
    return _body("TrainingJob", name, {**_spec(script), "numNodes": dice.choice([1, 1, 2])})


def _work(seconds: int) -> str:
    """For so long, unless it is told to leave."""
    return f"trap 'exit 143' TERM; sleep {seconds} & wait $!"


def _spec(script: str) -> Body:
    container = {"image": images.BUSYBOX, "command": ["sh", "-c", script], "launcher": "None"}
    return {"container": container, "restart": {"maxRestarts": 9, "backoffSeconds": 1}}


def _sweep(name: str) -> Body:
    said = TerminationMessage(reason=Reason.COMPLETED, exit_code=0, metrics=[Metric(name="score", value="0.5")])
    script = f"{_work(8)}; echo '{said.encode()}' | sed \"s/0.5/$LR/\" > $DARKROOM_TERMINATION_LOG"
    spec = {
        "objectives": [{"metric": "score"}],
        "parameters": [{"name": "lr", "env": "LR", "double": {"min": "0.1", "max": "0.9"}}],
        "algorithm": {"name": "Random", "seed": 7},
        "stopping": {"maxTrials": 6},
        "parallelism": 2,
        "trialTemplate": {"spec": _spec(script)},
    }
    return _body("TuningSweep", name, spec)


def _body(kind: str, name: str, spec: Body) -> Body:
    return {"apiVersion": "darkroom.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
