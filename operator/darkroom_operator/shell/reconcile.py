"""Gather, decide, act: one object at a time. The decision is `plan`, which is pure; this carries it out."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from darkroom_api import names
from darkroom_api.v1alpha1.scheduling import Gang
from darkroom_operator.core.training_job.observe import lagging_attempt
from darkroom_operator.core.training_job.queueing import suspended_job
from darkroom_operator.core.types import Body, Children, Delete, Facts, Patch, Plan, Refusal
from darkroom_operator.shell.cache import Cache, Key
from darkroom_operator.shell.client import (
    BY_KIND,
    PODS,
    TRAINING_JOBS,
    WORKLOADS,
    ApiError,
    Client,
    Resource,
    resource_of,
)
from darkroom_operator.shell.discovery import Discovery
from darkroom_operator.shell.events import Teller
from darkroom_operator.shell.inbox import Inbox
from darkroom_operator.shell.log import about
from darkroom_operator.shell.metrics import Metrics
from darkroom_operator.shell.precedents import Precedents
from darkroom_operator.shell.profiles import Profiles
from darkroom_operator.shell.queue import KeyedQueue
from darkroom_operator.shell.store import Store
from darkroom_operator.shell.tracing import Tracing

log = logging.getLogger(__name__)


class Caches:
    """The caches of all children, in every namespace that is served."""

    def __init__(
        self, jobs: list[Cache], pods: list[Cache], services: list[Cache], network_policies: list[Cache]
    ) -> None:
        self.jobs, self.pods, self.services, self.network_policies = jobs, pods, services, network_policies

    def all(self) -> list[Cache]:
        """Every cache."""
        return [*self.jobs, *self.pods, *self.services, *self.network_policies]

    def of(self, key: Key) -> Children:
        """What belongs to one TrainingJob."""
        departed = [body for cache in self.pods for body in cache.departed(key)]
        present = [body for cache in self.pods for body in cache.present(key)]
        return Children(
            jobs=tuple(body for cache in self.jobs for body in cache.present(key)),
            pods=(*present, *departed),
            services=tuple(body for cache in self.services for body in cache.present(key)),
            network_policies=tuple(body for cache in self.network_policies for body in cache.present(key)),
            departed=frozenset(body["metadata"]["uid"] for body in departed),
        )

    def pod(self, uid: str) -> Body | None:
        """The pod with this UID, if it exists and belongs to a TrainingJob."""
        return next((body for cache in self.pods if (body := cache.find(uid))), None)

    def put(self, body: Body) -> None:
        """The answer to our own write, before the watch brings it."""
        for cache in self.all():
            if cache.resource.kind == body["kind"] and cache.namespace in (None, body["metadata"]["namespace"]):
                cache.put(body)

    def forget(self, key: Key) -> None:
        """The TrainingJob is gone."""
        for cache in self.all():
            cache.forget(key)


class Actor(ABC):
    """Works on keys of a queue: what reconciling a TrainingJob and reconciling a TuningSweep have in common."""

    resource: ClassVar[Resource]

    def __init__(
        self, client: Client, store: Store, metrics: Metrics, *, reporter: str, leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._client, self._store, self._metrics = client, store, metrics
        self._leads, self._teller = leads, Teller(client, metrics, reporter)
        self.queue: KeyedQueue[Key]

    @abstractmethod
    def _forget(self, key: Key) -> None:
        """The object is gone."""

    @abstractmethod
    def _synced(self) -> bool:
        """Whether everything that a decision looks at has been listed once."""

    @abstractmethod
    async def _decide(self, key: Key, body: Body, refusal: Refusal | None = None) -> Plan:
        """Gather, and decide."""

    @abstractmethod
    def _took(self, stored: Body) -> None:
        """The answer to our own write of a child, before the watch brings it."""

    @abstractmethod
    def _count(self, body: Body, old: Body, new: Body) -> None:
        """A status has been stored."""

    async def __call__(self, key: Key) -> None:
        """Reconcile one object, and count how that went."""
        began = time.monotonic()
        try:
            result = await self._reconcile(key)
        except ApiError as error:
            namespace, name = key
            log.warning("%s; it is tried again", error, extra={"object": {"namespace": namespace, "name": name}})
            self.queue.add_failed(key)
            result = "error"
        except Exception:
            self._metrics.reconciles.labels("error").inc()
            raise
        self._metrics.reconciles.labels(result).inc()
        self._metrics.reconcile_seconds.observe(time.monotonic() - began)

    async def _reconcile(self, key: Key) -> str:
        body = self._store.get(key)
        if body is None:
            self._forget(key)
            self.queue.drop(key)
            return "gone"
        if not self._synced():
            self.queue.add_after(key, 0.2)
            return "waiting"
        if not self._leads():
            return "standby"  # the key comes again when we begin to lead
        decision = await self._decide(key, body)
        refusal = await self._act(body, decision)
        if refusal:
            decision = await self._decide(key, body, refusal)
        return await self._finish(key, body, decision, refused=refusal is not None)

    async def _act(self, body: Body, decision: Plan) -> Refusal | None:
        """Carry out the writes to children; the first final no ends it. Passing trouble is raised, and so retried."""
        for desired in decision.apply:
            if no := await self._write(body, desired, create=False):
                return no
        for desired in decision.create:
            if no := await self._write(body, desired, create=True):
                return no
        for change in decision.patch:
            await self._patch(body, change)
        for target in decision.delete:
            await self._delete(body, target)
        return None

    async def _write(self, body: Body, desired: Body, *, create: bool) -> Refusal | None:
        resource = resource_of(desired)
        try:
            if create:
                stored = await self._client.create(resource, desired)
            else:
                stored = await self._client.apply(resource, desired)
        except ApiError as error:
            if not error.final and error.code != 409:
                raise
            return await self._refused(body, desired, error)
        self._took(stored)
        log.info("%s %s", "created" if create else "applied", _words(desired), extra=about(body))
        return None

    async def _refused(self, body: Body, desired: Body, error: ApiError) -> Refusal | None:
        """None where "already exists" means that an earlier try of ours got through."""
        kind, meta = desired["kind"], desired["metadata"]
        if error.code == 403 and "being terminated" in error.message:
            return None  # the namespace goes, and the job with it
        if error.code != 409:
            return Refusal(kind, meta["name"], error.code, error.message)
        found = await self._client.get(resource_of(desired), meta["namespace"], meta["name"])
        owners = found["metadata"].get("ownerReferences", [])
        ours = {body["metadata"]["uid"], *(owner["uid"] for owner in meta["ownerReferences"])}
        if any(owner["uid"] in ours for owner in owners):
            self._took(found)
            return None
        if any(owner["kind"] == self.resource.kind for owner in owners):
            raise error  # left by an owner of the same name that was deleted: the garbage collector is on its way
        return Refusal(kind, meta["name"], 409, "the name belongs to an object of somebody else")

    async def _patch(self, body: Body, change: Patch) -> None:
        namespace = body["metadata"]["namespace"]
        whole = {**change.change, "metadata": {**change.change.get("metadata", {}), "uid": change.uid}}
        try:
            stored = await self._client.merge(BY_KIND[change.kind], namespace, change.name, whole)
        except ApiError as error:
            if error.code not in (404, 409):  # it is gone, or another has its name by now: the cache will say so
                raise
            return
        self._took(stored)
        log.info("changed %s %s", change.kind, change.name, extra=about(body))

    async def _delete(self, body: Body, target: Delete) -> None:
        """Foreground for Jobs: the Job stays until its pods are gone, which is how the next look knows."""
        propagation = "Foreground" if target.kind == "Job" else "Background"
        namespace = body["metadata"]["namespace"]
        await self._client.delete(BY_KIND[target.kind], namespace, target.name, uid=target.uid, propagation=propagation)
        log.info("deleted %s %s", target.kind, target.name, extra=about(body))

    async def _finish(self, key: Key, body: Body, decision: Plan, *, refused: bool) -> str:
        """Store the status, then tell the events, then set the alarm."""
        if not await self._store_status(key, body, decision):
            return "conflict"
        for event in decision.events:
            await self._teller.tell(body, event)
        if refused:
            self.queue.add_failed(key)
            return "refused"
        self.queue.forget(key)
        if decision.requeue_after is not None:
            self.queue.add_after(key, decision.requeue_after)
        return "ok"

    async def _store_status(self, key: Key, body: Body, decision: Plan) -> bool:
        """False if the object is not what the plan was made for any more."""
        old = body.get("status") or {}
        if decision.status is None or decision.status == old:
            return True
        try:
            stored = await self._client.replace_status(self.resource, body, decision.status)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            await self._look_again(key, body)
            return False
        self._store.put(stored)
        self._count(body, old, decision.status)
        return True

    async def _look_again(self, key: Key, body: Body) -> None:
        """Our picture of the object is old: the watch lags, or is broken. If it is not, the conflict was about something else."""
        namespace, name = key
        try:
            found = await self._client.get(self.resource, namespace, name)
            self._store.put(found)
            if found["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
                self.queue.add_failed(key)
        except ApiError as error:
            if error.code != 404:
                raise
            self._store.remove(key, body["metadata"]["uid"])


class Reconciler(Actor):
    """Works on TrainingJobs."""

    resource = TRAINING_JOBS

    def __init__(
        self,
        client: Client,
        store: Store,
        caches: Caches,
        profiles: Profiles,
        metrics: Metrics,
        *,
        plan: Callable[[Facts], Plan],
        reporter: str,
        discovery: Discovery,
        leads: Callable[[], bool] = lambda: True,
        inbox: Inbox | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        super().__init__(client, store, metrics, reporter=reporter, leads=leads)
        self._caches, self._profiles, self._plan = caches, profiles, plan
        self._precedents = Precedents()
        self._inbox, self._discovery, self._tracing = inbox or Inbox(), discovery, tracing

    def _forget(self, key: Key) -> None:
        self._caches.forget(key)
        self._inbox.forget(key)

    def _synced(self) -> bool:
        known = (self._discovery.synced, *(cache.synced for cache in self._caches.all()))
        return all(synced.is_set() for synced in known)

    async def _decide(self, key: Key, body: Body, refusal: Refusal | None = None) -> Plan:
        self._precedents.note(body)
        children = await self._with_workloads(body, await self._children(key, body))
        now = self._client.clock.now()
        facts = Facts(
            body,
            children,
            now,
            self._profiles.current,
            served=self._discovery.served,
            refusal=refusal,
            live=self._inbox.newest(key),
            channel=self._inbox.channel,
            listening_since=self._inbox.listening_since,
            precedent=self._precedents.of(body),
            trace_id=self._tracing.trace_id(body, now) if self._tracing else None,
        )
        return self._plan(facts)

    async def _children(self, key: Key, body: Body) -> Children:
        """As cached; the pods of an attempt whose end is known are asked for, if theirs is not."""
        children = self._caches.of(key)
        number = lagging_attempt(body, children)
        if number is None:
            return children
        namespace = body["metadata"]["namespace"]
        selector = f"{names.LABEL_JOB_UID}={body['metadata']['uid']},{names.LABEL_ATTEMPT}={number}"
        pods, _ = await self._client.list(PODS, namespace, selector)
        for pod in pods:
            self._caches.put(pod | {"kind": PODS.kind})  # which objects in a list lack
        return self._caches.of(key)

    async def _with_workloads(self, body: Body, children: Children) -> Children:
        """With what Kueue says about a Job that it holds back."""
        uid = suspended_job(body, children)
        if uid is None or Gang.KUEUE.value not in self._discovery.served:
            return children
        selector = f"{names.KUEUE_JOB_UID}={uid}"
        found, _ = await self._client.list(WORKLOADS, body["metadata"]["namespace"], selector)
        return replace(children, workloads=tuple(found))

    def _took(self, stored: Body) -> None:
        self._caches.put(stored)

    def _count(self, body: Body, old: Body, new: Body) -> None:
        self._metrics.count_changes(body, old, new)


def _words(desired: Body) -> str:
    return f"{desired['kind']} {desired['metadata']['name']}"
