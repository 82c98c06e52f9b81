"""Whole lives of jobs in bad weather: a crash, a second attempt, success, while every kind of request fails in every way.

All lives are led at once, by one operator behind one proxy; each test looks at one of them. Faults of watches have a namespace
each, for the operator watches each namespace by itself; faults of writes have a job each.
"""

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.flowers import PROFILES, Flowers
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess
from tests.shell.faults import (
    Answer,
    CloseAtOnce,
    Fault,
    FaultyProxy,
    Gone,
    HalfALine,
    Hangup,
    LostAnswer,
    Request,
    Silence,
    Slow,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
BUSY = Answer(429, "TooManyRequests", {"Retry-After": "1"})
WATCHES: dict[str, Fault] = {
    "dropped": CloseAtOnce(),
    "reset": HalfALine(),
    "too-old": Gone(),
    "half-open": Silence(),
    "slow": Slow(0.3),
    "busy": BUSY,
    "broken": Answer(500, "InternalError"),
}
"""Every second watch of each kind of object meets it."""
ANSWERS: dict[str, list[Fault]] = {
    "conflict": [Answer(409, "Conflict")] * 2,
    "gone": [Answer(410, "Gone")] * 2,
    "invalid": [Answer(422, "Invalid")] * 2,
    "busy": [BUSY] * 2,
    "broken": [Answer(500, "InternalError")] * 6,
    "a load balancer's": [Answer(503, text="<html>")] * 2,
    "reset": [Hangup()] * 2,
    "lost": [LostAnswer()] * 2,
    "silent": [Silence()],
}
"""What the first requests of a kind about a job meet; six are more than one try of the client lasts."""
WRITES = {
    "create-job": lambda request: request.method == "POST" and request.on("jobs"),
    "create-service": lambda request: request.method == "POST" and request.on("services"),
    "store-status": lambda request: request.method == "PATCH" and request.path.partition("?")[0].endswith("/status"),
}
LIVES = {f"life{number:02d}": pair for number, pair in enumerate(itertools.product(WRITES, ANSWERS))}


@dataclass
class Weather:
    """What the proxy does, and to whom."""

    writes: str
    """Namespace of the jobs whose writes fail."""
    left: dict[str, list[Fault]] = field(default_factory=lambda: {n: list(ANSWERS[a]) for n, (_, a) in LIVES.items()})
    opened: Counter[str] = field(default_factory=Counter)

    def __call__(self, request: Request) -> Fault | None:
        if request.is_watch:
            return self._of_watch(request.path.partition("?")[0])
        for name, (write, _) in LIVES.items():
            if self.left[name] and WRITES[write](request) and is_about(request, name):
                return self.left[name].pop()
        return None

    def _of_watch(self, path: str) -> Fault | None:
        self.opened[path] += 1
        fault = next((fault for name, fault in WATCHES.items() if f"/namespaces/{self.writes}-{name}/" in path), None)
        return fault if self.opened[path] % 2 else None


def is_about(request: Request, name: str) -> bool:
    return name in request.path or name.encode() in request.body


@dataclass
class Lived:
    """What there is when all is over."""

    jobs: dict[str, Flowers]
    proxy: FaultyProxy
    weather: Weather
    seconds: float
    log: str


@pytest.fixture(scope="module")
def lived(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """Lead all lives."""
    folder, base = tmp_path_factory.mktemp("faults"), "weather"
    places = {name: f"{base}-{name}" for name in WATCHES} | dict.fromkeys(LIVES, base)
    for namespace in set(places.values()):
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for namespace in set(places.values()):
        eventually(lambda n=namespace: kube.get("ServiceAccount", n, "default"), what="default service account")
    proxy = FaultyProxy(kube)
    settings = {"NAMESPACES": ",".join(set(places.values())), "WATCH_SECONDS": "4", "SILENCE_SECONDS": "2"}
    environment = {f"DARKROOM_{name}": value for name, value in settings.items()}
    proxy.rule = weather = Weather(base)
    began = time.monotonic()
    operator = OperatorProcess(proxy.kubeconfig(folder / "kubeconfig"), PROFILES, folder / "log", **environment)
    try:
        operator.start(ready=False)
        restart = {"maxRestarts": 1, "backoffSeconds": 0}
        jobs = {name: Flowers(kube, namespace, name, restart=restart) for name, namespace in places.items()}
        lead(kube, jobs)
        assert operator.stop() == 0
    finally:
        operator.kill()
    yield Lived(jobs, proxy, weather, time.monotonic() - began, operator.log.read_text())
    proxy.close()
    for namespace in set(places.values()):
        kube.delete("Namespace", None, namespace)


def lead(kube: Kube, jobs: dict[str, Flowers]) -> None:
    """Each first attempt crashes, each second one succeeds, as soon as it is said to run."""
    ended: set[tuple[str, int]] = set()

    def step() -> bool:
        found = {body["metadata"]["name"]: body.get("status", {}) for body in kube.list("TrainingJob")}
        for name, job in jobs.items():
            status = found[name]
            if status.get("state") == "Running" and (now := (name, status["attempt"])) not in ended:
                job.end(now[1], *([70] if now[1] == 1 else [0, 0]))
                ended.add(now)
        left = {name: found[name].get("conditions", [])[-3:] for name in jobs if not found[name].get("finished")}
        assert not left, left
        return True

    eventually(step, within=240, what="every life to its end")


def check_life(job: Flowers) -> None:
    """Nothing lost, doubled or restarted: exactly the objects of a life in good weather."""
    status = job.status
    assert status["state"] == "Complete"
    assert [attempt["result"] for attempt in status["attempts"]] == ["Failed", "Succeeded"]
    assert (status["restarts"], status["disruptions"]) == (1, 0)
    selector = f"darkroom.dev/training-job={job.name}"
    made = {
        found["metadata"]["uid"]: found["metadata"]["name"] for found in job.kube.list("Job", job.namespace, selector)
    }
    assert made == {attempt["uid"]: f"{job.name}-{attempt['number']}" for attempt in status["attempts"]}
    services = [found["metadata"]["name"] for found in job.kube.list("Service", job.namespace, selector)]
    assert services == [f"darkroom-{job.name}"]


@pytest.mark.parametrize("fault", WATCHES)
def test_a_life_while_every_second_watch_is(fault, lived):
    check_life(lived.jobs[fault])
    streams = {path: n for path, n in lived.weather.opened.items() if f"-{fault}/" in path}
    assert len(streams) == 6  # TrainingJobs, TuningSweeps, Jobs, pods, Services, NetworkPolicies
    assert max(streams.values()) > 1, "it was met"
    assert max(streams.values()) <= 4 + lived.seconds, "no hot loop"


@pytest.mark.parametrize(
    ("name", "write", "answer"), [(name, *pair) for name, pair in LIVES.items()], ids=lambda part: part
)
def test_a_life_whose_first_writes_are_answered(name, write, answer, lived):
    check_life(lived.jobs[name])
    assert lived.weather.left[name] == [], "it was met"
    asked = [request for request in lived.proxy.requests if is_about(request, name) and request.method != "GET"]
    creations = [request for request in asked if request.method == "POST" and request.on("jobs")]
    spoilt = len(ANSWERS[answer])
    assert len(creations) <= 2 + spoilt
    assert len([request for request in asked if not request.on("events")]) <= 20 + 2 * spoilt, Counter(
        (request.method, request.path.partition("?")[0]) for request in asked
    )


def test_what_the_operator_said_in_bad_weather(lived):
    """A line for each failure, none of them a bug's."""
    assert "Traceback" not in lived.log
    lines = [json.loads(line) for line in lived.log.splitlines()]
    assert len(lines) < 40 * len(lived.jobs)


def test_a_crash_that_the_watch_of_pods_did_not_tell_of(kube, namespace, tmp_path):
    """Jobs and pods come by different watches: the end is judged by pods that were asked for."""
    proxy = FaultyProxy(kube)
    proxy.rule = lambda request: Silence() if request.is_watch and request.on("pods") else None
    kubeconfig, log = proxy.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "log"
    operator = OperatorProcess(kubeconfig, PROFILES, log, DARKROOM_NAMESPACES=namespace)
    try:
        operator.start(ready=False)
        job = Flowers(kube, namespace, numNodes=1, restart={"maxRestarts": 0})
        eventually(lambda: job.pods(1), within=60, what="its pod")
        job.end(1, 70)
        assert job.reaches("Failed")["failure"]["exitCode"] == 70
    finally:
        operator.kill()
        proxy.close()
