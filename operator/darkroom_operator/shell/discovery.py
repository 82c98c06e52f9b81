"""Which queueing systems and gang schedulers the API server has the objects of: asked at the start, and now and then."""

import asyncio
import logging
import random
from collections.abc import Callable

from darkroom_api.v1alpha1.scheduling import Gang
from darkroom_operator.core.training_job.queueing import APIS
from darkroom_operator.shell.client import DISCOVERY, ApiError, Client

log = logging.getLogger(__name__)
RETRY_SECONDS = 2.0


class Discovery:
    """API version by gang scheduler. What is not answered stays as it was."""

    def __init__(self, client: Client, on_change: Callable[[], None], seconds: float) -> None:
        self._client, self._on_change, self._seconds = client, on_change, seconds
        self.served: dict[str, str] = {}
        self.synced = asyncio.Event()

    async def look(self) -> None:
        """Ask once about each; ApiError if one could not be answered."""
        served = {}
        for gang in APIS:
            if version := await self._version(gang):
                served[gang.value] = version
        news = served != self.served
        self.served = served
        self.synced.set()
        if news:
            log.info("gang schedulers served: %s", ", ".join(f"{g} ({v})" for g, v in served.items()) or "none")
            self._on_change()

    async def _version(self, gang: Gang) -> str | None:
        for version, resource in APIS[gang]:
            try:
                found = await self._client.document(f"/apis/{version}", DISCOVERY)
            except ApiError as error:
                if error.code not in (403, 404):  # 403: discovery is closed, so we may not know; as good as absent
                    raise
                continue
            if any(item["name"] == resource for item in found.get("resources") or []):
                return version
        return None

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
                pause = self._seconds
            except ApiError as error:
                log.warning("asking what the API server serves: %s", error)
                pause = self._seconds if self.synced.is_set() else RETRY_SECONDS
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load
