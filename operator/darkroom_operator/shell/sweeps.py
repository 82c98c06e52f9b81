"""TuningSweeps: their TrainingJobs by sweep, and their reconciler, which decides in a thread of its own.

A decision asks a sampler, which takes from 0.03 to 2 seconds; the operator's loop never waits for it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from darkroom_api import names
from darkroom_operator.core.tuning_sweep.history import SweepFacts
from darkroom_operator.core.types import Body, Plan, Refusal
from darkroom_operator.shell.cache import Key
from darkroom_operator.shell.client import TUNING_SWEEPS, Client
from darkroom_operator.shell.metrics import Metrics
from darkroom_operator.shell.reconcile import Actor
from darkroom_operator.shell.store import Store


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
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sweeps")

    def _forget(self, key: Key) -> None:
        self._trials.forget(key)

    def _synced(self) -> bool:
        return self._jobs.synced.is_set()

    async def _decide(self, key: Key, body: Body, refusal: Refusal | None = None) -> Plan:
        facts = SweepFacts(body, self._trials.of(key), self._client.clock.now(), refusal)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._plan, facts)

    def _took(self, stored: Body) -> None:
        self._jobs.put(stored)

    def _count(self, body: Body, old: Body, new: Body) -> None:
        self._metrics.count_trials(body, old, new)
