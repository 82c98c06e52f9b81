"""The client: patches, pages, retries, long lines."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom_operator.shell.client import EVENTS, JOBS, PODS, ApiError, Client, _cleared, _lines
from darkroom_operator.shell.endpoint import Endpoint
from tests.shell.faults import Answer, FaultyProxy, Hangup, LostAnswer
from tests.shell.test_cache import pod

WORDS = st.sampled_from(["a", "b", "c"])
OBJECTS: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.text(max_size=2) | st.booleans() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, as the API server does it."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merged(target.get(key), value)
    return target


@given(st.dictionaries(WORDS, OBJECTS), st.dictionaries(WORDS, OBJECTS))
def test_the_patch_leads_from_any_status_to_any_other(old, new):
    assert merged(old, _cleared(old, new)) == new


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
def test_lines_are_whole_however_they_arrive(size):
    text = b'{"a":1}\n\n{"b":"' + b"x" * 300_000 + b'"}\n{"cut'
    chunks = [text[i : i + size] for i in range(0, len(text), size)] if size > 100 else [text[:50], text[50:]]

    class Stream:
        async def iter_any(self):
            for chunk in chunks:
                yield chunk

    async def main() -> list[bytes]:
        return [line async for line in _lines(Stream())]  # type: ignore[arg-type]

    assert [len(line) for line in asyncio.run(main())] == [7, 300_008]


def calls(proxy: FaultyProxy, call: Any, seen: list[Any] | None = None) -> Any:
    """Run `call(client)`; `seen` gets what the metrics are told."""

    async def main() -> Any:
        client = Client(Endpoint(proxy.url, None, lambda: None), lambda *told: (seen or []).append(told))
        try:
            return await call(client)
        finally:
            await client.close()

    return asyncio.run(main())


@pytest.mark.cluster
def test_a_busy_server_is_asked_again_when_it_says(proxy):
    proxy.rule = lambda _: Answer(429, "TooManyRequests", {"Retry-After": "2"}) if len(proxy.requests) == 1 else None
    began = time.monotonic()
    items, _ = calls(proxy, lambda client: client.list(PODS, "default"))
    assert items == []
    assert 1.5 < time.monotonic() - began < 5
    assert len(proxy.requests) == 2


@pytest.mark.cluster
@pytest.mark.parametrize("fault", [Answer(500), Answer(503), Hangup(), Answer(502, text="<html>")], ids=str)
def test_tries_are_bounded(proxy, fault):
    proxy.rule = lambda _: fault
    with pytest.raises(ApiError) as failure:
        calls(proxy, lambda client: client.list(PODS, "default"))
    # aiohttp itself repeats a GET whose connection broke, once
    assert len(proxy.requests) == (8 if fault == Hangup() else 4)
    assert failure.value.passing


@pytest.mark.cluster
@pytest.mark.parametrize("code", [400, 403, 404, 422])
def test_a_final_no_is_not_asked_again(proxy, code):
    proxy.rule = lambda _: Answer(code)
    with pytest.raises(ApiError) as failure:
        calls(proxy, lambda client: client.list(PODS, "default"))
    assert len(proxy.requests) == 1
    assert failure.value.final


@pytest.mark.cluster
def test_a_rotated_token_is_used_from_then_on_and_401_is_not_final(proxy):
    proxy.rule = lambda _: Answer(401, "Unauthorized")
    with pytest.raises(ApiError) as failure:
        calls(proxy, lambda client: client.list(PODS, "default"))
    assert not failure.value.final


@pytest.mark.cluster
def test_a_create_whose_answer_was_lost_says_that_it_exists(proxy, kube, namespace):
    proxy.rule = lambda _: LostAnswer() if len(proxy.requests) == 1 else None
    with pytest.raises(ApiError) as failure:
        calls(proxy, lambda client: client.create(PODS, pod(namespace, "once")))
    assert (failure.value.code, failure.value.reason) == (409, "AlreadyExists")
    stored = kube.get("Pod", namespace, "once")
    assert stored["metadata"]["managedFields"][0]["manager"] == "darkroom-operator"


@pytest.mark.cluster
def test_lists_come_in_pages(proxy, kube, namespace, monkeypatch):
    for number in range(5):
        kube.create(pod(namespace, f"p{number}"), namespace)
    whole = Client.list

    async def small(self: Client, *arguments: Any) -> Any:
        request = self._request

        async def with_limit(*positional: Any, query: dict[str, str], **options: Any) -> Any:
            return await request(*positional, query=query | {"limit": "2"}, **options)

        self._request = with_limit  # type: ignore[method-assign]
        return await whole(self, *arguments)

    monkeypatch.setattr(Client, "list", small)
    items, _ = calls(proxy, lambda client: client.list(PODS, namespace))
    assert [item["metadata"]["name"] for item in items] == [f"p{number}" for number in range(5)]
    assert len(proxy.requests) == 3


@pytest.mark.cluster
def test_delete_hits_only_the_object_that_was_meant(proxy, kube, namespace):
    kube.create(pod(namespace, "namesake"), namespace)
    delete = {"uid": "another-uid", "propagation": "Background"}
    calls(proxy, lambda client: client.delete(PODS, namespace, "namesake", **delete))
    assert kube.get("Pod", namespace, "namesake")
    calls(proxy, lambda client: client.delete(JOBS, namespace, "never-was", **delete))


@pytest.mark.cluster
def test_best_effort_is_one_try(proxy):
    proxy.rule = lambda _: Answer(500)
    with pytest.raises(ApiError):
        calls(proxy, lambda client: client.create(EVENTS, {"metadata": {"namespace": "default"}}, tries=1))
    assert len(proxy.requests) == 1
