"""TuningSweeps: their TrainingJobs by sweep, and their reconciler, which decides in a thread of its own.

A decision asks a sampler, which takes from 0.03 to 2 seconds; the operator's loop never waits for it.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from darkroom_api import names
from darkroom_operator.core.tuning_sweep.history import SweepFacts
from darkroom_operator.core.tuning_sweep.ledger import Page, read_page
from darkroom_operator.core.types import Body, Plan, Refusal
from darkroom_operator.shell.cache import Key
from darkroom_operator.shell.client import CONFIG_MAPS, TUNING_SWEEPS, ApiError, Client
from darkroom_operator.shell.metrics import Metrics
from darkroom_operator.shell.reconcile import Actor
from darkroom_operator.shell.store import Store

PAGE_SECONDS = 600.0
"""After so long, a page is asked for again: somebody may have deleted it."""


class Trials:
    """Which TrainingJobs belong to which sweep, kept up to date as they come and go."""

    def __init__(self, jobs: Store, on_change: Callable[[Key], None]) -> None:
        self._jobs, self._on_change = jobs, on_change
        self._homes: dict[Key, Key] = {}
        self._members: dict[Key, set[Key]] = defaultdict(set)

    def changed(self, job: Key) -> None:
        """A TrainingJob is new, different or gone: its sweep is looked at again."""
        body = self._jobs.get(job)
        sweep = body["metadata"].get("labels", {}).get(names.LABEL_SWEEP) if body else None
        new, old = (job[0], sweep) if sweep else None, self._homes.pop(job, None)
        if old and old != new:
            self._members[old].discard(job)
            self._on_change(old)
        if new:
            self._homes[job] = new
            self._members[new].add(job)
            self._on_change(new)

    def of(self, sweep: Key) -> tuple[Body, ...]:
        """TrainingJobs with the sweep's label."""
        found = (self._jobs.get(job) for job in sorted(self._members.get(sweep, ())))
        return tuple(body for body in found if body is not None)

    def forget(self, sweep: Key) -> None:
        """The sweep is gone; what is left of its trials keeps its place."""
        if not self._members.get(sweep):
            self._members.pop(sweep, None)


class Pages:
    """Pages of ledgers. They never change, so each is read by name, and kept: nothing needs a watch on ConfigMaps."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pages: dict[Key, dict[str, Page]] = defaultdict(dict)
        self._read: dict[tuple[Key, str], float] = {}

    async def of(self, sweep: Key, body: Body) -> tuple[tuple[Page, ...], frozenset[str]]:
        """All that are known, and the names of those that are gone by now."""
        uid, listed = body["metadata"]["uid"], (body.get("status") or {}).get("ledgerPages", [])
        for name in [name for name, page in self._pages[sweep].items() if page.owner != uid]:
            del self._pages[sweep][name]
        gone = set()
        for entry in listed:
            if not await self._is_there(sweep, entry["name"]):
                gone.add(entry["name"])
        return tuple(self._pages[sweep].values()), frozenset(gone)

    async def _is_there(self, sweep: Key, name: str) -> bool:
        if time.monotonic() - self._read.get((sweep, name), -PAGE_SECONDS) < PAGE_SECONDS:
            return True
        try:
            found = await self._client.get(CONFIG_MAPS, sweep[0], name)
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        self.put(found, sweep)
        return True

    def put(self, body: Body, sweep: Key) -> None:
        """A page that was read or made."""
        name = body["metadata"]["name"]
        known, page = self._pages[sweep].get(name), read_page(body)
        if page is None:
            self._pages[sweep].pop(name, None)
        elif known is None or known.text != page.text or known.owner != page.owner:
            self._pages[sweep][name] = page
        self._read[sweep, name] = time.monotonic()

    def keep(self, sweeps: Collection[Key]) -> None:
        """All other sweeps are gone."""
        for sweep in self._pages.keys() - sweeps:
            self.forget(sweep)

    def forget(self, sweep: Key) -> None:
        """The sweep is gone."""
        for name in self._pages.pop(sweep, {}):
            self._read.pop((sweep, name), None)


class SweepReconciler(Actor):
    """Works on TuningSweeps."""

    resource = TUNING_SWEEPS

    def __init__(
        self,
        client: Client,
        store: Store,
        jobs: Store,
        trials: Trials,
        metrics: Metrics,
        *,
        plan: Callable[[SweepFacts], Plan],
        reporter: str,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(client, store, metrics, reporter=reporter, leads=leads)
        self._jobs, self._trials, self._plan = jobs, trials, plan
        self._pages = Pages(client)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sweeps")

    def _forget(self, key: Key) -> None:
        self._trials.forget(key)
        self._pages.forget(key)

    def _synced(self) -> bool:
        return self._jobs.synced.is_set()

    async def _decide(self, key: Key, body: Body, refusal: Refusal | None = None) -> Plan:
        pages, gone = await self._pages.of(key, body)
        facts = SweepFacts(body, self._trials.of(key), self._client.clock.now(), refusal, pages, gone)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._plan, facts)

    def _took(self, stored: Body) -> None:
        if stored["kind"] == CONFIG_MAPS.kind:
            self._pages.put(stored, (stored["metadata"]["namespace"], stored["metadata"]["labels"][names.LABEL_SWEEP]))
        else:
            self._jobs.put(stored)

    def _count(self, body: Body, old: Body, new: Body) -> None:
        self._metrics.count_trials(body, old, new)
