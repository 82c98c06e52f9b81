"""Two operators, one lease: who leads when the other is killed, asked to leave, paused, or cut off."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from darkroom_operator.core.lease import Timing
from darkroom_operator.shell.client import EVENTS, Client, NotLeading
from darkroom_operator.shell.endpoint import Endpoint
from darkroom_operator.shell.lease import Elector, LeaseLost
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess
from tests.shell.conftest import PROFILES
from tests.shell.faults import Answer, FaultyProxy, LostAnswer, Request, Silence

pytestmark = pytest.mark.cluster
QUICK = {"LEASE_SECONDS": "4", "RENEW_SECONDS": "2.5", "RETRY_SECONDS": "0.5"}
WRITES = ("POST", "PUT", "PATCH", "DELETE")


class Replica:
    """One operator behind a proxy of its own, which sees what it writes."""

    def __init__(self, kube: Kube, namespace: str, folder: Path, **settings: str) -> None:
        self.proxy = FaultyProxy(kube)
        folder.mkdir()
        kubeconfig, profiles = self.proxy.kubeconfig(folder / "kubeconfig"), folder / "profiles.yaml"
        profiles.write_text(PROFILES)
        environment = {"LEASE": f"{namespace}/darkroom", "NAMESPACES": namespace} | settings
        variables = {f"DARKROOM_{name}": value for name, value in environment.items()}
        self.process = OperatorProcess(kubeconfig, profiles, folder / "operator.log", **variables)

    @property
    def leads(self) -> bool:
        text = self.process.fetch("/metrics")[1]
        return 'leader_election_master_status{name="trainingjobs"} 1.0' in text

    def signal(self, number: int) -> None:
        assert self.process.process
        os.kill(self.process.process.pid, number)

    def writes(self, since: float = 0.0) -> list[str]:
        """Writes to anything but the lease."""
        made = [r for r in self.proxy.since(since) if r.method in WRITES and not r.on("leases")]
        return [f"{request.method} {request.path}" for request in made]

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        self.process.kill()
        self.proxy.close()


@pytest.fixture
def pair(kube: Kube, namespace: str, tmp_path: Path) -> Iterator[Callable[..., tuple[Replica, Replica]]]:
    """Makes a leader and one that stands by, both ready."""
    made: list[Replica] = []

    def start(**settings: str) -> tuple[Replica, Replica]:
        for number in range(2):
            made.append(Replica(kube, namespace, tmp_path / f"replica-{number}", **settings))
            made[-1].process.start()  # a standby is ready as well: its caches are warm
            eventually(lambda: made[0].leads, what="the first one leads")
        return made[0], made[1]

    yield start
    for replica in made:
        replica.close()


def job(kube: Kube, namespace: str, name: str) -> None:
    container = {"image": "localhost/mine:1", "command": ["train"]}
    body = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "spec": {"container": container}}
    kube.create(body | {"metadata": {"name": name}}, namespace)


def served(kube: Kube, namespace: str, name: str) -> None:
    def stored() -> Any:
        return (kube.get("TrainingJob", namespace, name) or {}).get("status", {}).get("state")

    eventually(stored, within=30, what=f"a status of {name}")
    assert [j["metadata"]["name"] for j in kube.list("Job", namespace) if j["metadata"]["name"].startswith(name)] == [
        f"{name}-1"
    ]


def test_one_leads_and_the_other_is_warm_and_writes_nothing(pair, kube, namespace):
    leader, standby = pair(**QUICK)
    job(kube, namespace, "flowers")
    served(kube, namespace, "flowers")
    assert not standby.leads
    assert standby.process.fetch("/readyz")[0] == 200
    assert standby.process.fetch("/healthz")[0] == 200
    assert f'darkroom_trainingjobs{{namespace="{namespace}"' in leader.process.fetch("/metrics")[1]
    assert "darkroom_trainingjobs{" not in standby.process.fetch("/metrics")[1]  # a sum counts each job once
    assert standby.writes() == []


def test_a_killed_leader_is_replaced_within_20_seconds(pair, kube, namespace):
    """With the timings that the chart has."""
    leader, standby = pair()
    job(kube, namespace, "before")
    served(kube, namespace, "before")
    leader.process.kill()
    began = time.monotonic()
    job(kube, namespace, "after")
    eventually(lambda: standby.leads, within=20, what="the other one leads")
    served(kube, namespace, "after")
    assert time.monotonic() - began < 20
    served(kube, namespace, "before")
    creations = [write for write in leader.writes() + standby.writes() if write.startswith("POST") and "/jobs" in write]
    assert len(creations) == 2, creations


def test_a_leader_that_is_asked_to_leave_hands_over_within_5_seconds(pair, kube, namespace):
    leader, standby = pair()
    began = time.monotonic()
    assert leader.process.stop() == 0
    eventually(lambda: standby.leads, within=5, what="the other one leads")
    assert time.monotonic() - began < 5
    spec = kube.get("Lease", namespace, "darkroom")["spec"]
    assert spec["leaseTransitions"] == 1
    job(kube, namespace, "flowers")
    served(kube, namespace, "flowers")


def test_a_standby_that_leaves_disturbs_nobody(pair, kube, namespace):
    leader, standby = pair(**QUICK)
    assert standby.process.stop() == 0
    assert leader.leads
    assert kube.get("Lease", namespace, "darkroom")["spec"]["leaseTransitions"] == 0


def test_a_paused_leader_never_writes_again(pair, kube, namespace):
    """SIGSTOP stands for a frozen virtual machine, a swapping node, a suspended container."""
    leader, standby = pair(**QUICK)
    job(kube, namespace, "before")
    served(kube, namespace, "before")
    leader.signal(signal.SIGSTOP)
    job(kube, namespace, "after")
    eventually(lambda: standby.leads, within=15, what="the other one leads")
    served(kube, namespace, "after")
    kube.delete("Job", namespace, "before-1")  # something to do for whoever believes that he leads
    woken = time.monotonic()
    leader.signal(signal.SIGCONT)
    assert leader.process.process
    assert leader.process.process.wait(timeout=30) == 1
    assert leader.writes(since=woken) == []
    assert "could not be renewed" in leader.process.log.read_text()
    assert standby.leads


def test_a_leader_that_is_cut_off_ends_before_another_begins(pair, kube, namespace):
    leader, standby = pair(**QUICK)
    leader.proxy.rule = lambda request: Silence() if request.on("leases") else None
    cut = time.monotonic()
    assert leader.process.process
    assert leader.process.process.wait(timeout=30) == 1
    eventually(lambda: standby.leads, within=15, what="the other one leads")
    job(kube, namespace, "flowers")
    served(kube, namespace, "flowers")
    assert leader.writes(since=cut) == []


def test_an_api_server_that_fails_for_a_moment_changes_no_leader(pair, kube, namespace):
    leader, _ = pair(**QUICK)
    for fault in (Answer(503, "ServiceUnavailable"), LostAnswer()):
        renewals = len([r for r in leader.proxy.requests if r.method == "PUT"])
        faults = iter([fault])

        def once(request: Request, faults: Iterator[Any] = faults) -> Any:
            return next(faults, None) if request.on("leases") and request.method == "PUT" else None

        leader.proxy.rule = once
        eventually(
            lambda n=renewals: len([r for r in leader.proxy.requests if r.method == "PUT"]) > n + 2, what="renewed"
        )
    assert leader.leads
    assert kube.get("Lease", namespace, "darkroom")["spec"]["leaseTransitions"] == 0


def test_somebody_who_takes_the_lease_away_ends_the_leader(pair, kube, namespace):
    leader, _ = pair(**QUICK)
    path = kube.path("Lease", namespace, "darkroom")
    patch = {"spec": {"holderIdentity": "an administrator"}}
    kube.request("PATCH", path, patch, kind="application/merge-patch+json")
    assert leader.process.process
    assert leader.process.process.wait(timeout=20) == 1
    assert "an administrator holds the lease" in leader.process.log.read_text()


def test_a_write_that_waited_for_its_connection_is_not_sent(kube, namespace):
    """The question is asked when the connection is there, not when the write was decided."""
    proxy = FaultyProxy(kube)

    async def main() -> None:
        leading = True
        client = Client(Endpoint(proxy.url, None, lambda: None), lambda *_: None, lambda: leading)
        client._session.connector._limit = 1  # type: ignore[union-attr]
        body = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x", "namespace": namespace}}
        proxy.rule = lambda request: Silence() if request.method == "GET" else None
        blocking = asyncio.create_task(client.list(EVENTS, namespace))
        await asyncio.to_thread(eventually, lambda: proxy.requests, what="the only connection is taken")
        write = asyncio.create_task(client.create(EVENTS, body))
        await asyncio.sleep(0.1)
        leading = False
        blocking.cancel()
        with pytest.raises(NotLeading):
            await write
        await client.close()

    asyncio.run(main())
    assert [request.method for request in proxy.requests] == ["GET"]
    proxy.close()


def test_of_twenty_candidates_one_leads(kube, namespace):
    """All at once, for as long as it takes to make and renew the lease."""

    async def main() -> None:
        client = Client(Endpoint(proxy.url, None, lambda: None), lambda *_: None)
        leaders: list[str] = []
        timing = Timing(lease=15, renew=10.0, retry=0.2)
        electors = {name: Elector(client, namespace, "many", name, timing) for name in map(str, range(20))}
        tasks = [
            asyncio.create_task(elector.run(lambda name=name: leaders.append(name)))
            for name, elector in electors.items()
        ]
        for _ in range(20):
            await asyncio.sleep(0.1)
            assert sum(elector.leads() for elector in electors.values()) <= 1
        assert [name for name, elector in electors.items() if elector.leads()] == leaders
        assert len(leaders) == 1
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [end for end in ends if isinstance(end, LeaseLost | aiohttp.ClientError)]
        await client.close()

    proxy = FaultyProxy(kube)
    asyncio.run(main())
    assert "holderIdentity" not in kube.get("Lease", namespace, "many")["spec"]
    proxy.close()
