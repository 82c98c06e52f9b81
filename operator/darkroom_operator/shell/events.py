"""Tells Events: to the log, and as objects of events.k8s.io/v1. Best effort: an Event is never the only record."""

import logging
from datetime import datetime
from typing import Any

from darkroom_api import names
from darkroom_operator.core.recorder import Recorder, Write
from darkroom_operator.core.types import Body, Event
from darkroom_operator.shell.client import EVENTS, ApiError, Client
from darkroom_operator.shell.log import about
from darkroom_operator.shell.metrics import Metrics

log = logging.getLogger(__name__)


class Teller:
    """Of one kind of object; `reporter` is this process, as reportingInstance says it."""

    def __init__(self, client: Client, metrics: Metrics, reporter: str) -> None:
        self._client, self._metrics, self._reporter = client, metrics, reporter
        self._recorder = Recorder()

    async def tell(self, body: Body, event: Event) -> None:
        """A repeat goes into the count of the Event that told it first, and not into the log."""
        now, uid = self._client.clock.now(), body["metadata"]["uid"]
        write = self._recorder.next_write(uid, event, now)
        if write is None or write.count > 1:
            log.debug("%s again: %s", event.reason, event.note, extra=about(body))
        else:
            level = logging.WARNING if event.type == "Warning" else logging.INFO
            log.log(level, "%s: %s", event.reason, event.note, extra=about(body))
        result = "kept_back" if write is None else await self._write(body, write, now)
        self._metrics.events.labels(event.type, result).inc()

    async def _write(self, body: Body, write: Write, now: datetime) -> str:
        """Create the Event, or count in the one that is there; how that went."""
        uid, namespace = body["metadata"]["uid"], body["metadata"]["namespace"]
        try:
            if write.name:
                await self._client.merge(EVENTS, namespace, write.name, _series(write, now), tries=1)
                return "counted"
            stored = await self._client.create(EVENTS, _event(body, write, now, self._reporter), tries=1)
        except ApiError as error:
            self._recorder.written(uid, write, None if error.code == 404 else write.name)
            log.info("an event could not be told: %s", error, extra=about(body))
            return "failed"
        self._recorder.written(uid, write, stored["metadata"]["name"])
        return "created"


def _event(body: Body, write: Write, now: datetime, reporter: str) -> dict[str, Any]:
    meta, event = body["metadata"], write.event
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta['name']}-", "namespace": meta["namespace"]},
        "eventTime": _moment(now),
        "type": event.type,
        "reason": event.reason,
        "action": event.action,
        "note": event.note,
        "reportingController": names.CONTROLLER,
        "reportingInstance": reporter[:128],
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": body["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        **(_series(write, now) if write.count > 1 else {}),
    }


def _series(write: Write, now: datetime) -> dict[str, Any]:
    return {"series": {"count": write.count, "lastObservedTime": _moment(now)}}


def _moment(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
