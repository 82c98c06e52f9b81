"""Leader election: one of several operators writes, the others keep their caches warm.

A leader leads for `renew` seconds from the moment at which it *sent* its last successful renewal; `leads()` turns false by
itself after that, and the client refuses writes from then on (docs/adr/0009).
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from darkroom_operator.core import lease
from darkroom_operator.shell.client import LEASES, ApiError, Client, Object

log = logging.getLogger(__name__)


class LeaseLost(Exception):  # noqa: N818 - reads as what happened
    """We led, and cannot be sure of it any more: the process must end."""


class Leadership(Protocol):
    """Whether this process is the one that writes."""

    def leads(self) -> bool:
        """At this very moment."""

    async def run(self, on_leading: Callable[[], None]) -> None:
        """Until cancelled; calls `on_leading` when we begin to lead."""


class Alone:
    """No election: the only operator there is."""

    def leads(self) -> bool:
        """Always."""
        return True

    async def run(self, on_leading: Callable[[], None]) -> None:
        """Nothing to do."""
        on_leading()
        await asyncio.Event().wait()


class Elector:
    """Stands for election with a Lease. The client must be its own: its writes are not fenced, and wait for no others'."""

    def __init__(self, client: Client, namespace: str, name: str, identity: str, timing: lease.Timing) -> None:
        self._client, self._namespace, self._name = client, namespace, name
        self._me, self._timing = identity, timing
        self._body: Object | None = None
        self._seen: lease.Seen | None = None
        self._until: float | None = None

    def leads(self) -> bool:
        """Whether the last renewal is fresh enough that nobody else can lead."""
        return self._until is not None and time.monotonic() < self._until

    async def run(self, on_leading: Callable[[], None]) -> None:
        """Stand by, lead, and step down when cancelled; LeaseLost if leading ends in any other way."""
        try:
            while True:
                led = self._until is not None
                pause = await self._step()
                if self._until is not None and not self.leads():
                    raise LeaseLost(f"the lease could not be renewed for {self._timing.renew} s")
                if self._until is not None and not led:
                    log.info("leading as %s", self._me)
                    on_leading()
                await asyncio.sleep(pause * random.uniform(0.9, 1.0))  # noqa: S311 - spreads tries
        except asyncio.CancelledError:
            await self._step_down()
            raise

    async def _step(self) -> float:
        """One look, and one write if it is our turn; returns the seconds until the next."""
        if self._until is not None and not self.leads():
            return 0.0  # paused, or cut off, for too long: another may lead by now
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timing.renew / 2):
                return await self._look_and_write(began)
        except (ApiError, TimeoutError) as error:
            self._body = None  # look again
            level = logging.DEBUG if getattr(error, "code", 0) == 409 else logging.WARNING  # 409: somebody was quicker
            log.log(level, "lease %s/%s: %s: %s", self._namespace, self._name, type(error).__name__, error)
            return self._timing.retry / 2

    async def _look_and_write(self, began: float) -> float:
        if self._body is None:
            await self._read()
        leading = self._until is not None
        now, clock = time.monotonic(), self._client.clock.now()
        match lease.next_step(self._seen, self._me, self._timing, now, clock, leading=leading):
            case lease.Wait(seconds):
                self._body = None
                return seconds
            case lease.Lost(other):
                self._until = None
                raise LeaseLost(f"{other} holds the lease")
            case lease.Write(spec):
                await self._write(spec)
        self._until = began + self._timing.renew
        return self._timing.retry

    async def _read(self) -> None:
        try:
            self._body = await self._client.get(LEASES, self._namespace, self._name, tries=1)
        except ApiError as error:
            if error.code != 404:
                raise
            self._body = self._seen = None
            return
        self._seen = lease.see(self._seen, self._body, time.monotonic())

    async def _write(self, spec: lease.Spec) -> None:
        meta = {"namespace": self._namespace, "name": self._name}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
        if self._body is None:
            self._body = await self._client.create(LEASES, {**body, "spec": spec}, tries=1)
        else:  # with its resourceVersion: two that take it at once get one success and one conflict
            self._body = await self._client.replace(LEASES, {**body, **self._body, "spec": spec}, tries=1)
        self._seen = lease.see(self._seen, self._body, time.monotonic())

    async def _step_down(self) -> None:
        """Best effort: without it the next leader waits until the lease is over."""
        if not self.leads():
            return
        self._until = None  # first: nothing may be written after the lease is given away
        try:
            async with asyncio.timeout(self._timing.retry):
                await self._read()  # a renewal may have been under way when we were cancelled
                if self._seen is not None and self._seen.holder == self._me:
                    await self._write(lease.released(self._seen, self._client.clock.now()))
            log.info("stepped down")
        except (ApiError, TimeoutError) as error:
            log.warning("stepping down: %s: %s", type(error).__name__, error)
