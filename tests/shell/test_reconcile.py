"""Carrying out plans against a real API server; the plan itself is a function of the test."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from darkroom_api import names
from darkroom_api.crd import UNSEEN
from darkroom_operator.core.types import Body, Delete, Event, Facts, Plan
from darkroom_operator.shell.cache import Cache
from darkroom_operator.shell.client import JOBS, NETWORK_POLICIES, PODS, SERVICES, Client
from darkroom_operator.shell.discovery import Discovery
from darkroom_operator.shell.endpoint import Endpoint
from darkroom_operator.shell.metrics import Metrics
from darkroom_operator.shell.profiles import Profiles
from darkroom_operator.shell.queue import KeyedQueue
from darkroom_operator.shell.reconcile import Caches, Reconciler
from darkroom_operator.shell.settings import Settings
from darkroom_operator.shell.store import Store, key_of
from tests.shell.faults import Answer, FaultyProxy, LostAnswer

pytestmark = pytest.mark.cluster


class Bench:
    """A reconciler with real caches of one namespace, whose queue only notes what it is asked."""

    def __init__(self, proxy: FaultyProxy, namespace: str, plan: Callable[[Facts], Plan]) -> None:
        self.metrics = Metrics()
        self.metrics.profiles = {"default"}
        self.client = Client(Endpoint(proxy.url, None, lambda: None), self.metrics.count_request)
        self.added: list[Any] = []
        self.store = Store(self.added.append)
        self.caches = Caches(
            *([self._cache(resource, namespace)] for resource in (JOBS, PODS, SERVICES, NETWORK_POLICIES))
        )
        profiles = Profiles(Path("/nowhere"), lambda: None, self.metrics)
        self.facts: list[Facts] = []
        self.discovery = Discovery(self.client, lambda: None, 60.0)
        self.discovery.synced.set()
        self.reconciler = Reconciler(
            self.client,
            self.store,
            self.caches,
            profiles,
            self.metrics,
            plan=self._noted(plan),
            reporter="test",
            discovery=self.discovery,
        )
        self.queue = self.reconciler.queue = Notes()  # type: ignore[assignment]

    def _cache(self, resource: Any, namespace: str) -> Cache:
        return Cache(self.client, resource, namespace, self.added.append, Settings())

    def _noted(self, plan: Callable[[Facts], Plan]) -> Callable[[Facts], Plan]:
        def noting(facts: Facts) -> Plan:
            self.facts.append(facts)
            return plan(facts)

        return noting

    def result(self, word: str) -> float:
        return self.metrics.registry.get_sample_value("darkroom_reconcile_total", {"result": word}) or 0.0


@dataclass
class Notes:
    """What the queue was asked for."""

    failed: int = 0
    later: list[float] = field(default_factory=list)

    def add_failed(self, _: Any) -> None:
        self.failed += 1

    def add_after(self, _: Any, seconds: float) -> None:
        self.later.append(seconds)

    def forget(self, _: Any) -> None:
        self.failed = 0

    def drop(self, _: Any) -> None:
        self.failed = 0


def reconcile(proxy: FaultyProxy, namespace: str, body: Body, plan: Callable[[Facts], Plan], times: int = 1) -> Bench:
    """Reconcile `body` in a process that has just started."""

    async def main() -> Bench:
        bench = Bench(proxy, namespace, plan)
        for cache in bench.caches.all():
            await cache._list()
        bench.store.put(body)
        proxy.requests.clear()
        for _ in range(times):
            await bench.reconciler(key_of(body))
        await bench.client.close()
        return bench

    return asyncio.run(main())


@pytest.fixture
def flowers(kube: Any, namespace: str) -> Body:
    """A TrainingJob that is stored."""
    container = {"image": "localhost/mine:1", "command": ["train"]}
    body = {"apiVersion": names.API_VERSION, "kind": "TrainingJob", "spec": {"container": container}}
    return kube.create(body | {"metadata": {"name": "flowers", "namespace": namespace}}, namespace)


def owned(body: Body, kind: str, name: str, **spec: Any) -> dict[str, Any]:
    meta = body["metadata"]
    owner = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {names.LABEL_JOB: meta["name"], names.LABEL_JOB_UID: meta["uid"]},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def job(body: Body, name: str = "flowers-1") -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "localhost/mine:1"}]}
    return owned(body, "Job", name, suspend=True, template={"spec": pod})


def service(body: Body) -> dict[str, Any]:
    return owned(body, "Service", "flowers", clusterIP="None", selector={names.LABEL_JOB: "flowers"})


def saying(word: str, facts: Facts) -> dict[str, Any]:
    """A status whose condition tells of the refusal, if there is one."""
    refusal = facts.refusal
    condition = {
        "type": "Ready",
        "status": "False",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": f"Refused{refusal.code}" if refusal else "Fine",
        "message": refusal.message if refusal else "",
    }
    return {"state": word, "conditions": [condition]}


def test_the_service_comes_before_the_job_and_the_status_before_the_event(proxy, kube, namespace, flowers):
    said = Event("Normal", "Started", "attempt 1 started")

    def plan(facts: Facts) -> Plan:
        return Plan(create=(job(flowers),), apply=(service(flowers),), status=saying("Pending", facts), events=(said,))

    bench = reconcile(proxy, namespace, flowers, plan)
    assert [request.path.split("?")[0].split("/")[-1] for request in proxy.requests] == [
        "flowers",
        "jobs",
        "status",
        "events",
    ]
    assert bench.result("ok") == 1
    assert kube.get("TrainingJob", namespace, "flowers")["status"]["state"] == "Pending"
    (event,) = [e for e in kube.list("Event", namespace) if e.get("reason") == "Started"]
    assert event["regarding"]["uid"] == flowers["metadata"]["uid"]
    assert event["reportingController"] == "darkroom.dev/operator"


def test_our_writes_are_seen_at_the_next_look_without_any_watch(proxy, namespace, flowers):
    def plan(facts: Facts) -> Plan:
        return Plan(
            create=() if facts.children.jobs else (job(flowers),),
            apply=() if facts.children.services else (service(flowers),),
            status=saying("Pending", facts),
        )

    bench = reconcile(proxy, namespace, flowers, plan, times=4)
    assert len(proxy.requests) == 3, "then nothing is left to do"
    assert bench.facts[1].body["status"]["state"] == "Pending"
    assert bench.added.count((namespace, "flowers")) == 4, "put in by the test, then looked at again after each write"


def test_a_status_is_replaced_whole(proxy, kube, namespace, flowers):
    states = iter([{"state": "A", "restarts": 1, "outputs": {"claim": "c", "model": "m"}}, {"outputs": {"claim": "c"}}])
    reconcile(proxy, namespace, flowers, lambda _: Plan(status=next(states)), times=2)
    assert kube.get("TrainingJob", namespace, "flowers")["status"] == {"outputs": {"claim": "c"}}


def test_a_create_whose_answer_was_lost_counts_as_done(proxy, namespace, flowers):
    proxy.rule = lambda request: LostAnswer() if request.method == "POST" and len(proxy.requests) == 1 else None
    bench = reconcile(proxy, namespace, flowers, lambda _: Plan(create=(job(flowers),)))
    assert bench.result("ok") == 1
    assert len(bench.caches.of((namespace, "flowers")).jobs) == 1


def test_a_foreign_object_of_that_name_is_told_and_left_alone(proxy, kube, namespace, flowers):
    foreign = job(flowers)
    del foreign["metadata"]["ownerReferences"], foreign["metadata"]["labels"]
    kube.create(foreign, namespace)
    bench = reconcile(
        proxy, namespace, flowers, lambda facts: Plan(create=(job(flowers),), status=saying("Stalled", facts))
    )
    assert bench.result("refused") == 1
    assert bench.queue.failed == 1
    stored = kube.get("TrainingJob", namespace, "flowers")["status"]["conditions"][0]
    assert stored["reason"] == "Refused409"
    assert "somebody else" in stored["message"]


def test_what_a_deleted_namesake_left_is_waited_for_quietly(proxy, kube, namespace, flowers):
    left = job(flowers)
    left["metadata"]["ownerReferences"][0]["uid"] = "00000000-0000-0000-0000-000000000000"
    left["metadata"]["finalizers"] = ["darkroom.dev/test"]  # the garbage collector would be too fast for the test
    kube.create(left, namespace)
    bench = reconcile(
        proxy, namespace, flowers, lambda facts: Plan(create=(job(flowers),), status=saying("Stalled", facts))
    )
    assert bench.result("error") == 1
    assert kube.get("TrainingJob", namespace, "flowers")["status"] == UNSEEN
    kube.merge("Job", namespace, "flowers-1", {"metadata": {"finalizers": None}})


def test_an_invalid_child_becomes_a_condition(proxy, kube, namespace, flowers):
    bad = job(flowers)
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = ""
    bench = reconcile(proxy, namespace, flowers, lambda facts: Plan(create=(bad,), status=saying("Stalled", facts)))
    assert bench.result("refused") == 1
    stored = kube.get("TrainingJob", namespace, "flowers")["status"]["conditions"][0]
    assert stored["reason"] == "Refused422"
    assert "image" in stored["message"]


@pytest.mark.parametrize("code", [401, 429, 500, 503])
def test_passing_trouble_is_tried_again_and_never_told_to_the_user(proxy, kube, namespace, flowers, code):
    proxy.rule = lambda request: Answer(code) if request.method == "POST" else None
    bench = reconcile(
        proxy, namespace, flowers, lambda facts: Plan(create=(job(flowers),), status=saying("Stalled", facts))
    )
    assert bench.result("error") == 1
    assert bench.queue.failed == 1
    assert kube.get("TrainingJob", namespace, "flowers")["status"] == UNSEEN


def test_an_old_picture_is_replaced_even_if_the_watch_is_dead(proxy, kube, namespace, flowers):
    kube.merge("TrainingJob", namespace, "flowers", {"metadata": {"annotations": {"somebody": "was here"}}})
    bench = reconcile(proxy, namespace, flowers, lambda facts: Plan(status=saying("Pending", facts)), times=2)
    assert (bench.result("conflict"), bench.result("ok"), bench.queue.failed) == (1, 1, 0)
    assert kube.get("TrainingJob", namespace, "flowers")["status"]["state"] == "Pending"


def test_a_conflict_about_nothing_is_tried_again(proxy, kube, namespace, flowers):
    proxy.rule = lambda request: Answer(409, "Conflict") if request.method == "PATCH" else None
    bench = reconcile(proxy, namespace, flowers, lambda facts: Plan(status=saying("Pending", facts)))
    assert (bench.result("conflict"), bench.queue.failed) == (1, 1)


def test_a_job_that_is_gone_is_forgotten(proxy, kube, namespace, flowers):
    kube.delete("TrainingJob", namespace, "flowers")
    bench = reconcile(proxy, namespace, flowers, lambda facts: Plan(status=saying("Pending", facts)), times=2)
    assert bench.store.bodies() == []
    assert (bench.result("conflict"), bench.result("gone")) == (1, 1)


def test_the_same_words_are_one_line_and_one_event_with_a_count(proxy, kube, namespace, flowers, caplog):
    words = Event("Warning", "Unschedulable", "0/4 nodes are available")
    bench = reconcile(proxy, namespace, flowers, lambda _: Plan(events=(words, words)), times=3)
    (line,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert line.getMessage() == "Unschedulable: 0/4 nodes are available"
    assert line.object["name"] == "flowers"
    (event,) = [e for e in kube.list("Event", namespace) if e.get("reason") == "Unschedulable"]
    assert event["series"]["count"] == 6
    assert event["series"]["lastObservedTime"] > event["eventTime"]
    told = bench.metrics.registry.get_sample_value
    assert told("darkroom_events_total", {"type": "Warning", "result": "created"}) == 1
    assert told("darkroom_events_total", {"type": "Warning", "result": "counted"}) == 5


def test_a_storm_of_events_ends_in_a_bounded_number_and_the_end_is_told(proxy, kube, namespace, flowers):
    storm = [Event("Warning", "AttemptFailed", f"attempt {number} ended", "EndAttempt") for number in range(100)]
    end = Event("Warning", "RestartsExhausted", "restarts exhausted", "Finish")
    bench = reconcile(proxy, namespace, flowers, lambda _: Plan(events=(*storm, end)))
    events = [e for e in kube.list("Event", namespace) if e["regarding"]["name"] == "flowers"]
    assert len(events) == 10 + 1 + 1
    (combined,) = [e for e in events if e["note"].startswith("(combined from similar events): attempt 10 ended")]
    assert combined["series"]["count"] == 15, "the budget of 25 is spent; the others wait for the next write"
    assert [e["note"] for e in events if e["reason"] == "RestartsExhausted"] == ["restarts exhausted"]
    told = bench.metrics.registry.get_sample_value
    assert told("darkroom_events_total", {"type": "Warning", "result": "kept_back"}) == 75


def test_an_event_that_somebody_deleted_is_made_again(proxy, kube, namespace, flowers):
    words = Event("Normal", "Queued", "no room")

    def plan(_: Facts) -> Plan:
        for event in kube.list("Event", namespace):
            kube.delete("Event", namespace, event["metadata"]["name"])
        return Plan(events=(words,))

    bench = reconcile(proxy, namespace, flowers, plan, times=3)
    (event,) = kube.list("Event", namespace)
    assert event["series"]["count"] == 3
    told = bench.metrics.registry.get_sample_value
    assert told("darkroom_events_total", {"type": "Normal", "result": "failed"}) == 1
    assert told("darkroom_events_total", {"type": "Normal", "result": "created"}) == 2


def test_an_event_that_is_refused_harms_nothing(proxy, kube, namespace, flowers):
    proxy.rule = lambda request: Answer(403) if request.on("events") else None
    plan = Plan(events=(Event("Normal", "Started", "so it is"),), status={"state": "Pending"}, requeue_after=7.0)
    bench = reconcile(proxy, namespace, flowers, lambda _: plan)
    assert bench.result("ok") == 1
    assert bench.queue.later == [7.0]


def test_deletes_hit_only_what_was_meant(proxy, kube, namespace, flowers):
    stored = kube.create(job(flowers), namespace)
    kube.create(job(flowers, "flowers-2"), namespace)
    targets = (Delete("Job", "flowers-1", stored["metadata"]["uid"]), Delete("Job", "flowers-2", "not-this-one"))
    reconcile(proxy, namespace, flowers, lambda _: Plan(delete=targets))
    going = kube.get("Job", namespace, "flowers-1")
    assert going is None or "deletionTimestamp" in going["metadata"]
    assert "deletionTimestamp" not in kube.get("Job", namespace, "flowers-2")["metadata"]


def test_the_end_of_a_job_is_counted_when_it_is_stored(proxy, namespace, flowers):
    condition = saying("x", Facts(flowers, None, None))["conditions"][0] | {"reason": "Completed"}  # type: ignore[arg-type]
    attempt = {"number": 1, "job": "flowers-1", "uid": "u", "startTime": "2026-01-01T00:00:00Z", "result": "Succeeded"}
    attempt |= {"endTime": "2026-01-01T00:10:00Z", "reason": "Completed"}
    ended = {"state": "Complete", "finished": True, "conditions": [condition], "attempts": [attempt]}
    ended |= {"nodeHours": "0.5000", "gpuHours": "4.0000", "cost": "2.5000 EUR", "time": {"total": "9", "compute": "7"}}
    bench = reconcile(proxy, namespace, flowers, lambda _: Plan(status=ended), times=3)
    label = {"namespace": namespace, "profile": "default", "reason": "Completed"}
    read = bench.metrics.registry.get_sample_value
    assert read("darkroom_trainingjobs_finished_total", label | {"result": "Complete"}) == 1
    assert read("darkroom_attempts_total", label | {"result": "Succeeded"}) == 1
    place = {"namespace": namespace, "profile": "default"}
    assert read("darkroom_node_seconds_total", place) == 1800
    assert read("darkroom_accelerator_seconds_total", place) == 14400
    assert read("darkroom_cost_total", place | {"currency": "EUR"}) == 2.5
    assert read("darkroom_time_seconds_total", place | {"bucket": "compute"}) == 7
    assert read("darkroom_time_seconds_total", place | {"bucket": "total"}) is None


def test_nothing_is_decided_before_the_caches_are_full(proxy, namespace, flowers):
    async def main() -> None:
        bench = Bench(proxy, namespace, lambda _: pytest.fail("decided on half of the facts"))
        bench.store.put(flowers)
        await bench.reconciler(key_of(flowers))
        assert bench.result("waiting") == 1
        assert bench.queue.later
        await bench.client.close()

    asyncio.run(main())


def test_a_bug_in_one_job_leaves_the_others_alone(proxy, namespace, flowers):
    async def main() -> None:
        bench = Bench(proxy, namespace, lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
        for cache in bench.caches.all():
            cache.synced.set()
        bench.store.put(flowers)
        queue = KeyedQueue(bench.reconciler, bench.metrics)
        bench.reconciler.queue = queue
        runner = asyncio.create_task(queue.run())
        queue.add(key_of(flowers))
        await asyncio.sleep(1.0)
        assert not runner.done()
        assert bench.result("error") >= 2
        runner.cancel()
        await asyncio.wait({runner})
        await bench.client.close()

    asyncio.run(main())
