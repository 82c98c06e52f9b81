"""The caches against a real API server, through a network that fails in every way we could think of."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from darkroom_api import names
from darkroom_operator.shell.cache import Cache
from darkroom_operator.shell.client import PODS, Client
from darkroom_operator.shell.endpoint import Endpoint
from darkroom_operator.shell.settings import Settings
from tests.shell.faults import (
    Answer,
    CloseAtOnce,
    Fault,
    FaultyProxy,
    Gone,
    HalfALine,
    Hangup,
    Request,
    Silence,
)

pytestmark = pytest.mark.cluster
FAULT_SECONDS = 4.0
BUSY = Answer(429, "TooManyRequests", {"Retry-After": "1"})
HTML = Answer(502, text="<html>bad gateway</html>")


def pod(namespace: str, name: str, job: str = "flowers") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {names.LABEL_JOB: job}},
        "spec": {"containers": [{"name": "trainer", "image": "localhost/none:1"}], "terminationGracePeriodSeconds": 0},
    }


@asynccontextmanager
async def cached(proxy: FaultyProxy, namespace: str, **settings: float) -> AsyncIterator[tuple[Cache, list[Any]]]:
    """A cache of pods that runs through the proxy, and the keys that it told of."""
    client = Client(Endpoint(proxy.url, None, lambda: None), lambda *_: None)
    told: list[Any] = []
    cache = Cache(client, PODS, namespace, told.append, Settings(**settings), keep_departed=True)
    runner = asyncio.create_task(cache.run())
    try:
        yield cache, told
    finally:
        runner.cancel()
        await asyncio.wait({runner})
        proxy.break_streams()
        await client.close()


async def until(check: Callable[[], object], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


def on_watches(fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.is_watch else None


def on_everything(fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda _: fault


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(on_watches(HalfALine()), id="streams break in the middle of a line"),
        pytest.param(on_watches(CloseAtOnce()), id="a proxy closes every stream at once"),
        pytest.param(on_watches(Gone()), id="410 in the stream"),
        pytest.param(on_watches(Answer(410, "Expired")), id="410 as the answer"),
        pytest.param(on_watches(Silence()), id="half-open connections"),
        pytest.param(on_everything(Hangup()), id="connections are refused"),
        pytest.param(on_everything(BUSY), id="429 with Retry-After"),
        pytest.param(on_everything(Answer(500, "InternalError")), id="500"),
        pytest.param(on_everything(Answer(503, "ServiceUnavailable")), id="503"),
        pytest.param(on_everything(HTML), id="HTML of a load balancer"),
        pytest.param(on_everything(Answer(401, "Unauthorized")), id="401"),
        pytest.param(on_everything(Answer(403, "Forbidden")), id="403"),
        pytest.param(on_everything(Answer(200, text="not json")), id="nonsense with 200"),
    ],
)
def test_converges_after_a_fault_without_a_hot_loop(rule, kube, namespace, proxy):
    async def main() -> None:
        async with cached(proxy, namespace, silence_seconds=2.0) as (cache, _):
            key = (namespace, "flowers")
            await asyncio.to_thread(kube.create, pod(namespace, "before"), namespace)
            await until(lambda: len(cache.present(key)) == 1)
            proxy.rule, began = rule, time.monotonic()
            proxy.break_streams()
            await asyncio.to_thread(kube.create, pod(namespace, "meanwhile"), namespace)
            await asyncio.to_thread(kube.delete, "Pod", namespace, "before")
            await asyncio.sleep(FAULT_SECONDS)
            asked = len(proxy.since(began))
            assert 1 <= asked <= 12, f"{asked} requests in {FAULT_SECONDS} s"
            proxy.rule = lambda _: None
            await until(lambda: [p["metadata"]["name"] for p in cache.present(key)] == ["meanwhile"])
            assert [p["metadata"]["name"] for p in cache.departed(key)] == ["before"]

    asyncio.run(main())


def test_a_proxy_that_closes_every_stream_is_asked_less_and_less(namespace, proxy, kube):
    async def main() -> None:
        proxy.rule = on_watches(CloseAtOnce())
        async with cached(proxy, namespace) as (cache, _):
            await until(cache.synced.is_set)
            began, heard = time.monotonic(), cache.last_activity
            await asyncio.sleep(9.0)
            watches = [r for r in proxy.since(began) if r.is_watch]
            assert len(watches) <= 5
            assert cache.last_activity == heard, "a stream that says nothing is no sign of life"

    asyncio.run(main())


def test_a_broken_stream_goes_on_where_it_was(kube, namespace, proxy):
    async def main() -> None:
        async with cached(proxy, namespace) as (cache, _):
            await until(cache.synced.is_set)
            began = time.monotonic()
            proxy.break_streams()
            await asyncio.to_thread(kube.create, pod(namespace, "a"), namespace)
            await until(lambda: cache.present((namespace, "flowers")))
            assert all(request.is_watch for request in proxy.since(began)), "no list for a break of a moment"

    asyncio.run(main())


def test_nothing_happens_for_long_and_the_stream_stays(kube, namespace, proxy):
    async def main() -> None:
        async with cached(proxy, namespace, watch_seconds=2.0) as (cache, _):
            await until(cache.synced.is_set)
            began = time.monotonic()
            await asyncio.sleep(7.0)
            assert len(proxy.since(began)) <= 5
            assert time.monotonic() - cache.last_activity < 4.0

    asyncio.run(main())


def test_many_namespaces_do_not_use_up_the_connections_of_requests(kube, namespace, proxy):
    async def main() -> None:
        client = Client(Endpoint(proxy.url, None, lambda: None), lambda *_: None)
        caches = [Cache(client, PODS, namespace, lambda _: None, Settings()) for _ in range(60)]
        runners = [asyncio.create_task(cache.run()) for cache in caches]
        await until(lambda: sum(request.is_watch for request in proxy.requests) >= 60)
        items, _ = await asyncio.wait_for(client.list(PODS, namespace), 5.0)
        assert items == []
        for runner in runners:
            runner.cancel()
        await asyncio.wait(runners)
        proxy.break_streams()
        await client.close()

    asyncio.run(main())


def test_the_answer_to_our_own_write_is_seen_at_once_and_outlives_an_older_list(kube, namespace, proxy):
    async def main() -> None:
        async with cached(proxy, namespace) as (cache, told):
            await until(cache.synced.is_set)
            proxy.rule = on_watches(Silence())
            proxy.break_streams()
            listed, version = await cache._client.list(PODS, namespace)
            stored = await asyncio.to_thread(kube.create, pod(namespace, "ours"), namespace)
            cache.put(stored)
            assert told[-1] == (namespace, "flowers")
            cache._client.list = _answering(listed, version)  # the list left before our write, and arrives after it
            await cache._list()
            assert len(cache.present((namespace, "flowers"))) == 1

    asyncio.run(main())


def _answering(items: list[Any], version: str) -> Callable[..., Any]:
    async def answer(*_: Any) -> tuple[list[Any], str]:
        return items, version

    return answer


def picture(version: int, uid: str = "u1", job: str = "flowers") -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": "p", "uid": uid, "resourceVersion": str(version)}
    return {"kind": "Pod", "metadata": metadata | {"labels": {names.LABEL_JOB: job}}}


@pytest.fixture
def shelf() -> Cache:
    return Cache(None, PODS, None, lambda _: None, Settings(), keep_departed=True)  # type: ignore[arg-type]


def test_an_older_picture_never_overwrites_a_newer_one(shelf):
    shelf.put(picture(7))
    shelf.put(picture(5))
    assert shelf.present(("ns", "flowers")) == (picture(7),)


def test_a_late_answer_does_not_bring_back_what_was_deleted(shelf):
    shelf.put(picture(5))
    shelf._take("DELETED", picture(9))
    shelf.put(picture(6))
    assert shelf.present(("ns", "flowers")) == ()
    assert shelf.departed(("ns", "flowers")) == (picture(9),)


def test_a_namesake_survives_the_deletion_of_its_predecessor(shelf):
    shelf.put(picture(5, uid="old"))
    shelf.put(picture(8, uid="new"))
    shelf._take("DELETED", picture(7, uid="old"))
    assert [body["metadata"]["uid"] for body in shelf.present(("ns", "flowers"))] == ["new"]


def test_a_label_that_is_changed_moves_the_object(shelf):
    shelf.put(picture(5))
    shelf.put(picture(6, job="trees"))
    assert shelf.present(("ns", "flowers")) == ()
    assert len(shelf.present(("ns", "trees"))) == 1


def test_the_departed_are_kept_for_ten_minutes(shelf, monkeypatch):
    shelf.put(picture(5))
    shelf._take("DELETED", picture(9))
    assert len(shelf.departed(("ns", "flowers"))) == 1
    later = time.monotonic() + 601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert shelf.departed(("ns", "flowers")) == ()


def test_a_job_that_is_gone_leaves_no_memory(shelf):
    shelf.put(picture(5))
    shelf._take("DELETED", picture(9))
    shelf.forget(("ns", "flowers"))
    assert not shelf._shelves
    assert not shelf._homes
