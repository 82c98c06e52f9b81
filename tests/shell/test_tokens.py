"""The cluster's keys are asked for when they are needed, and no more often than that."""

import asyncio

import pytest

from darkroom_operator.shell.client import ApiError, Client
from darkroom_operator.shell.endpoint import Endpoint
from darkroom_operator.shell.metrics import Metrics
from darkroom_operator.shell.tokens import BadTokenError, Tokens, check_times
from tests.kube import Kube
from tests.report_server import Reporter
from tests.shell.faults import Answer, FaultyProxy

pytestmark = pytest.mark.cluster
IN_TIME = {"iat": 1000, "nbf": 1000, "exp": 4600}


@pytest.fixture
def pod(kube: Kube, namespace: str) -> Reporter:
    spec = {"containers": [{"name": "x", "image": "localhost/x:1"}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    return Reporter(kube, kube.create(body, namespace))


def with_tokens(proxy: FaultyProxy, check) -> None:
    async def main() -> None:
        client = Client(Endpoint(proxy.url, None, lambda: None), Metrics().count_request)
        try:
            await check(Tokens(client))
        finally:
            await client.close()

    asyncio.run(main())


def asked(proxy: FaultyProxy) -> int:
    return len([request for request in proxy.requests if "/openid/v1/jwks" in request.path])


def test_keys_are_kept_and_outlive_an_api_server_that_is_away(pod, proxy, namespace):
    async def check(tokens: Tokens) -> None:
        token = pod.token()
        for _ in range(3):
            holder = await tokens.holder(token)
        assert (holder.namespace, holder.pod.name, holder.pod.uid) == (namespace, "one", pod.body["metadata"]["uid"])
        assert asked(proxy) == 1
        proxy.rule = lambda _: Answer(503, "ServiceUnavailable")
        tokens._asked_at -= 3600  # an hour passes
        assert (await tokens.holder(token)).pod.name == "one"

    with_tokens(proxy, check)


def test_an_invented_key_is_not_looked_for_again_and_again(pod, proxy):
    async def check(tokens: Tokens) -> None:
        invented = "eyJhbGciOiJSUzI1NiIsImtpZCI6Im5vbmUifQ.e30.AAAA"  # kid: none
        for _ in range(5):
            with pytest.raises(BadTokenError, match="does not publish"):
                await tokens.holder(invented)
        assert asked(proxy) == 1
        assert (await tokens.holder(pod.token())).pod.name == "one"

    with_tokens(proxy, check)


def test_keys_that_cannot_be_read_are_no_fault_of_the_token(pod, proxy):
    async def check(tokens: Tokens) -> None:
        token = pod.token()
        proxy.rule = lambda _: Answer(403, "Forbidden")
        for _ in range(3):
            with pytest.raises(ApiError):
                await tokens.holder(token)
        proxy.rule = lambda _: None
        tokens._asked_at -= 11
        assert (await tokens.holder(token)).pod.name == "one"

    with_tokens(proxy, check)


@pytest.mark.parametrize(
    ("claims", "now", "complaint"),
    [
        pytest.param(IN_TIME, 1000.0, None, id="just issued"),
        pytest.param(IN_TIME, 940.0, None, id="by a clock that is a minute ahead"),
        pytest.param(IN_TIME, 939.0, "not yet valid", id="by one that is more than that"),
        pytest.param(IN_TIME, 4659.0, None, id="old, and almost too old"),
        pytest.param(IN_TIME, 4660.0, "expired", id="too old"),
        pytest.param({"iat": 1000, "exp": 4600}, 1000.0, None, id="no nbf, which is optional"),
        pytest.param({"iat": 1000, "exp": 4600, "nbf": 2000}, 1000.0, "not yet valid", id="issued for later"),
        pytest.param({"iat": 1000, "exp": "soon"}, 1000.0, "no numbers", id="words"),
        pytest.param({"iat": 1000, "exp": float("nan")}, 1000.0, "no numbers", id="no number at all"),
    ],
)
def test_when_a_token_counts(claims, now, complaint):
    if complaint is None:
        check_times(claims, now)
    else:
        with pytest.raises(BadTokenError, match=complaint):
            check_times(claims, now)
