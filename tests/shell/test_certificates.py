"""The certificate of the report server: made once, kept in a Secret, renewed in time, and taken into use without a restart."""

import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from darkroom_operator.shell.certificates import (
    AUTHORITY_LIFE,
    LEAF_LIFE,
    LEAF_MARGIN,
    Certificates,
    Pair,
    _load,
    make_authority,
    make_leaf,
    renewed,
)
from darkroom_operator.shell.client import Client
from darkroom_operator.shell.endpoint import Endpoint
from darkroom_operator.shell.metrics import Metrics
from tests.kube import Kube

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST = "darkroom.darkroom-system.svc"
PAIR = renewed({}, HOST, NOW)


def changed(**names: str) -> dict[str, str]:
    return PAIR.data() | {name.replace("_", "."): text for name, text in names.items()}


STRANGER = make_authority(NOW)


@pytest.mark.parametrize(
    ("data", "host", "after", "keeps"),
    [
        pytest.param(PAIR.data(), HOST, timedelta(0), "both", id="all is well"),
        pytest.param(PAIR.data() | {"x": "eA=="}, HOST, timedelta(0), "both", id="with something of somebody else's"),
        pytest.param(PAIR.data(), HOST, LEAF_LIFE - LEAF_MARGIN - timedelta(hours=1), "both", id="not yet"),
        pytest.param(PAIR.data(), HOST, LEAF_LIFE - LEAF_MARGIN, "authority", id="the leaf's time has come"),
        pytest.param(PAIR.data(), HOST, timedelta(days=400), "authority", id="the operator was away for long"),
        pytest.param(PAIR.data(), "other.svc", timedelta(0), "authority", id="another address"),
        pytest.param(PAIR.data(), "10.0.0.1", timedelta(0), "authority", id="an IP address"),
        pytest.param(changed(tls_crt=""), HOST, timedelta(0), "authority", id="no leaf"),
        pytest.param(changed(tls_key=PAIR.data()["ca.key"]), HOST, timedelta(0), "authority", id="another's key"),
        pytest.param(
            PAIR.data() | Pair(PAIR.authority, make_leaf(STRANGER, HOST, NOW)).data(), HOST, timedelta(0), "authority",
            id="signed by another",
        ),
        pytest.param(PAIR.data(), HOST, AUTHORITY_LIFE - timedelta(days=300), "nothing", id="the authority's time has come"),
        pytest.param(changed(ca_key="x"), HOST, timedelta(0), "nothing", id="no base64"),
        pytest.param(changed(ca_crt="eA=="), HOST, timedelta(0), "nothing", id="no PEM"),
        pytest.param({}, HOST, timedelta(0), "nothing", id="as the chart ships it"),
    ],
)  # fmt: skip
def test_what_is_renewed(data, host, after, keeps):
    pair = renewed(data, host, NOW + after)
    same_authority = pair.authority.certificate == PAIR.authority.certificate
    same_leaf = pair.leaf.certificate == PAIR.leaf.certificate
    assert (same_authority, same_leaf) == {"both": (True, True), "authority": (True, False), "nothing": (False, False)}[
        keeps
    ]
    assert renewed(pair.data(), host, NOW + after).data() == pair.data()


def test_the_strictest_clients_accept_it():
    """Python 3.13 refuses authorities without key usage or identifiers."""
    pair = renewed({}, "localhost", datetime.now(UTC))
    client = ssl.create_default_context(cadata=pair.authority.pem[0].decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert shake(server_context(pair), client)["subjectAltName"] == (("DNS", "localhost"),)


def server_context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, *pair.leaf.pem)
    return context


def shake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> dict[str, Any]:
    """A handshake in memory; the server's certificate as the client sees it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return here.getpeercert()


# --- With the Secret of a real API server ---


class Replica:
    """An operator's certificates, without the rest of it."""

    def __init__(self, proxy: Any, namespace: str) -> None:
        self.metrics = Metrics()
        self.client = Client(Endpoint(proxy.url, None, lambda: None), self.metrics.count_request)
        self.authorities: list[str] = []
        secret = f"{namespace}/reports"
        self.certificates = Certificates(self.client, secret, "localhost", self.metrics, self.authorities.append)

    def peer(self) -> dict[str, Any]:
        client = ssl.create_default_context(cadata=self.authorities[0])
        return shake(self.certificates.context, client)


@pytest.mark.cluster
def test_two_replicas_agree_and_both_take_the_next_leaf_into_use(proxy, kube: Kube, namespace):
    kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "reports"}}, namespace)
    now = datetime.now(UTC)

    async def main() -> None:
        replicas = [Replica(proxy, namespace) for _ in range(2)]
        try:
            await asyncio.gather(
                *(replica.certificates.refresh(lambda: now - timedelta(days=70)) for replica in replicas)
            )
            first = [replica.peer() for replica in replicas]
            assert first[0] == first[1]
            for replica in replicas:  # one after the other, as their clocks have it
                await replica.certificates.refresh(lambda: now)
            second = [replica.peer() for replica in replicas]  # for those who know the authority of before
            assert second[0] == second[1] != first[0]
            assert {pem for replica in replicas for pem in replica.authorities} == {replicas[0].authorities[0]}
        finally:
            for replica in replicas:
                await replica.client.close()

    asyncio.run(main())
    secret = kube.get("Secret", namespace, "reports")
    assert secret is not None
    assert set(secret["data"]) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    assert b"BEGIN CERTIFICATE" in base64.b64decode(secret["data"]["ca.crt"])
    managers = {entry["manager"] for entry in secret["metadata"]["managedFields"] if "f:data" in entry["fieldsV1"]}
    assert managers == {"darkroom-operator"}


@pytest.mark.cluster
def test_a_secret_that_comes_late_is_found(proxy, kube: Kube, namespace, caplog):
    async def main() -> None:
        replica = Replica(proxy, namespace)
        task = asyncio.create_task(replica.certificates.run(poll=0.05))
        await asyncio.sleep(0.5)
        assert not replica.certificates.loaded.is_set()
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "reports"}}
        await asyncio.to_thread(kube.create, body, namespace)
        await asyncio.wait_for(replica.certificates.loaded.wait(), 20)
        task.cancel()
        await replica.client.close()

    asyncio.run(main())
    assert caplog.text.count("no certificate for live reports") == 1
