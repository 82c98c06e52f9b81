"""The operator as a process, behind a network that fails: it stays alive, stays quiet, says what is wrong, and recovers."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from darkroom_api import names
from darkroom_api.crd import all_crds
from darkroom_operator.shell import watch
from darkroom_operator.shell.client import TRAINING_JOBS, TUNING_SWEEPS
from darkroom_operator.shell.endpoint import Endpoint
from darkroom_operator.shell.metrics import Health
from darkroom_operator.shell.settings import Settings
from darkroom_operator.shell.store import Store
from tests.kube import Kube, eventually, install_crds
from tests.operator_process import OperatorProcess
from tests.shell.faults import Answer, CloseAtOnce, Fault, Gone, HalfALine, Request, Silence

pytestmark = pytest.mark.cluster


def apply(kube: Kube, namespace: str, name: str = "flowers") -> None:
    container = {"image": "localhost/mine:1", "command": ["train"]}
    body = {"apiVersion": names.API_VERSION, "kind": "TrainingJob", "spec": {"container": container}}
    kube.create(body | {"metadata": {"name": name, "namespace": namespace}}, namespace)


def served(kube: Kube, namespace: str, name: str = "flowers", within: float = 30.0) -> None:
    def stored() -> Any:
        return (kube.get("TrainingJob", namespace, name) or {}).get("status", {}).get("state")

    eventually(stored, within=within, what=f"a status of {name}")
    assert kube.get("Job", namespace, f"{name}-1")


def watches_of(plural: str, fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.is_watch and request.on(plural) else None


def test_it_serves_and_leaves_in_order(start, kube, namespace):
    operator = start(namespaces="")
    apply(kube, namespace)
    served(kube, namespace)
    assert operator.fetch("/healthz") == (200, "ok")
    _, text = operator.fetch("/metrics")
    assert f'darkroom_trainingjobs{{namespace="{namespace}",profile="default",state=' in text
    assert "darkroom_build_info" in text
    assert 'darkroom_watch_last_activity_seconds{resource="trainingjobs"}' in text
    assert "workqueue_longest_running_processor_seconds" in text
    assert 'name="flowers"' not in text, "series of single objects are opt-in"
    began = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - began < 4.0
    log = operator.log.read_text()
    assert "Traceback" not in log
    assert "Unclosed" not in log


def test_a_write_under_way_is_finished_before_it_leaves(start, kube, namespace, proxy):
    operator = start()

    def slow(request: Request) -> None:
        if request.method == "POST" and request.on("jobs"):
            time.sleep(2.0)

    proxy.rule = slow
    apply(kube, namespace)
    eventually(lambda: [r for r in proxy.requests if r.method == "POST"], what="the create is on its way")
    assert operator.stop() == 0
    assert kube.get("Job", namespace, "flowers-1")
    assert "asked to stop" in operator.log.read_text()


def test_without_a_crd_it_says_so_and_waits_for_it(start, kube, proxy, namespace):
    proxy.rule = lambda request: Answer(404, "NotFound") if request.on("tuningsweeps") else None
    operator = start(ready=False, stale_seconds="6")
    words = "the CRD tuningsweeps.darkroom.dev is not installed; waiting for it"
    eventually(
        lambda: operator.log.exists() and operator.log.read_text().count(words) > 1, within=60, what="it says so"
    )
    assert operator.fetch("/readyz")[0] == 503
    assert operator.fetch("/healthz")[0] == 200
    proxy.rule = lambda _: None
    apply(kube, namespace)
    served(kube, namespace)
    eventually(operator.is_ready, what="ready")


def test_one_that_waits_for_a_crd_leaves_at_once(start, proxy):
    proxy.rule = lambda request: Answer(404, "NotFound") if request.on("trainingjobs") else None
    operator = start(ready=False)
    eventually(lambda: "waiting for it" in operator.log.read_text(), within=60, what="it waits")
    began = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - began < 5


def test_crds_that_are_removed_and_come_back(start, kube, proxy, namespace):
    """Their objects go with them, and the children with those; the operator stays, and serves what is created afterwards."""
    operator = start()
    apply(kube, namespace)
    served(kube, namespace)
    began = time.monotonic()
    for crd in all_crds():
        kube.delete("CustomResourceDefinition", None, crd["metadata"]["name"])
    eventually(lambda: not kube.list("Job", namespace), within=60, what="the children are gone")
    eventually(lambda: "the CRD trainingjobs.darkroom.dev is not installed" in operator.log.read_text(), within=60)
    time.sleep(5.0)
    assert [request for request in proxy.since(began) if request.method == "POST" and request.on("jobs")] == []
    assert len([r for r in proxy.since(began) if r.on("trainingjobs") or r.on("tuningsweeps")]) < 30
    install_crds(kube)
    apply(kube, namespace)
    served(kube, namespace, within=60)
    assert operator.fetch("/healthz") == (200, "ok")
    assert operator.stop() == 0
    assert operator.starts == 1
    assert "Traceback" not in operator.log.read_text()


def test_without_the_secret_for_its_certificate_it_works_and_pods_get_no_address(start, kube, namespace):
    operator = start(reports_address="127.0.0.1:1", reports_secret=f"{namespace}/none")
    apply(kube, namespace)
    served(kube, namespace)
    (container,) = kube.get("Job", namespace, "flowers-1")["spec"]["template"]["spec"]["containers"]
    assert names.ENV_REPORT_URL not in {variable["name"] for variable in container["env"]}
    told = "no certificate for live reports, which training does without"
    eventually(lambda: told in operator.log.read_text(), what="a warning; the leader tries beside its first jobs")


def test_a_wrong_variable_is_named(start):
    operator = start(ready=False, workers="many")
    assert operator.process is not None
    assert operator.process.wait(timeout=20) == 1
    assert "DARKROOM_WORKERS='many'" in operator.log.read_text()


@pytest.mark.parametrize("plural", ["trainingjobs", "pods", "jobs", "services"])
def test_a_silent_watch_turns_health_red_and_is_named(start, proxy, namespace, plural):
    operator = start(watch_seconds="2", stale_seconds="6")
    eventually(lambda: operator.fetch("/healthz")[0] == 200)
    proxy.rule = watches_of(plural, Silence())
    code, text = eventually(lambda: (seen := operator.fetch("/healthz"))[0] == 500 and seen, within=30, what="red")
    assert code == 500
    assert f"{plural}/{namespace} (silent for" in text
    assert text.count("silent for") == 1, text


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(CloseAtOnce(), id="closed at once"),
        pytest.param(Gone(), id="410"),
        pytest.param(HalfALine(), id="cut"),
        pytest.param(Answer(403), id="403"),
        pytest.param(Answer(429, "TooManyRequests", {"Retry-After": "1"}), id="429"),
    ],
)
def test_kopfs_watch_is_kept_from_a_hot_loop_and_recovers(start, kube, proxy, namespace, fault):
    operator = start()
    apply(kube, namespace)
    served(kube, namespace)
    proxy.rule, began = watches_of("trainingjobs", fault), time.monotonic()
    proxy.break_streams()
    time.sleep(8.0)
    asked = [request for request in proxy.since(began) if request.on("trainingjobs")]
    assert 1 <= len(asked) <= 16, len(asked)
    apply(kube, namespace, "meanwhile")
    proxy.rule = lambda _: None
    served(kube, namespace, "meanwhile", within=60)
    assert operator.stop() == 0


def test_a_token_that_expires_is_no_hot_loop_and_no_end(start, kube, proxy, namespace):
    operator = start()
    apply(kube, namespace)
    served(kube, namespace)
    proxy.rule, began = (lambda _: Answer(401, "Unauthorized")), time.monotonic()
    proxy.break_streams()
    time.sleep(8.0)
    assert len(proxy.since(began)) <= 60  # four streams
    apply(kube, namespace, "meanwhile")
    proxy.rule = lambda _: None
    served(kube, namespace, "meanwhile", within=60)
    assert operator.stop() == 0


def test_an_api_server_that_is_away_for_more_than_a_minute(start, kube, proxy, namespace):
    operator = start()
    apply(kube, namespace)
    served(kube, namespace)
    proxy.rule, began = (lambda _: Answer(503, "ServiceUnavailable")), time.monotonic()
    proxy.break_streams()
    apply(kube, namespace, "meanwhile")
    time.sleep(65.0)
    assert len(proxy.since(began)) <= 120
    proxy.rule = lambda _: None
    served(kube, namespace, "meanwhile", within=90)
    assert operator.stop() == 0


def test_a_deletion_that_kopf_misses_is_noticed(start, kube, proxy, namespace):
    operator = start(resync_seconds="3")
    apply(kube, namespace)
    served(kube, namespace)
    proxy.rule = watches_of("trainingjobs", Gone())
    proxy.break_streams()
    kube.delete("TrainingJob", namespace, "flowers")
    eventually(lambda: f'namespace="{namespace}"' not in _jobs(operator), within=20, what="it is forgotten")


def _jobs(operator: OperatorProcess) -> str:
    _, text = operator.fetch("/metrics")
    return "\n".join(line for line in text.splitlines() if line.startswith("darkroom_trainingjobs{"))


def test_a_watcher_that_kopf_lost_turns_health_red(kube, namespace, proxy):
    """Kopf goes on without a watcher task that somebody cancelled; nothing is logged."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        endpoint = Endpoint(proxy.url, None, lambda: None)
        settings = Settings(namespaces=(namespace,), watch_seconds=2.0)
        stop = asyncio.Event()
        stores = {TRAINING_JOBS: Store(lambda _: None), TUNING_SWEEPS: Store(lambda _: None)}
        activity, health = watch.StreamActivity(settings.namespaces), Health(6.0)
        for name, heard in activity.streams().items():
            health.watch_stream(name, heard)
        handlers = watch.registry(stores, endpoint, settings, activity)
        kopf = asyncio.create_task(watch.run(handlers, settings, stop, stop.set))
        await asyncio.sleep(8.0)
        assert health.dead() == []
        watchers = [task for task in asyncio.all_tasks() if "watcher for trainingjobs" in task.get_name()]
        assert watchers
        for task in watchers:
            task.cancel()
        await asyncio.sleep(8.0)
        assert not kopf.done(), "Kopf's part of the story"
        assert f"trainingjobs/{namespace}" in [text.split(" ")[0] for text in health.dead()]
        stop.set()
        await asyncio.wait_for(kopf, 15)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    asyncio.run(main())
