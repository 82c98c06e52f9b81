"""The newest live report of each TrainingJob, and where pods send theirs. In memory: a restart loses liveness alone."""

from datetime import datetime

from darkroom_operator.core.training_job.live import is_newer
from darkroom_operator.core.types import Channel, Live
from darkroom_operator.shell.cache import Key


class Inbox:
    """Filled by the report server, read by the reconciler."""

    def __init__(self) -> None:
        self._newest: dict[Key, Live] = {}
        self.channel: Channel | None = None
        """None until there is a certificate: a pod without an address loses less than one that calls in vain."""
        self.listening_since: datetime | None = None
        """When this operator began to lead: before that, reports went elsewhere."""

    def put(self, key: Key, live: Live) -> bool:
        """Whether it was news."""
        if not is_newer(self._newest.get(key), live):
            return False
        self._newest[key] = live
        return True

    def newest(self, key: Key) -> Live | None:
        """The last that was put."""
        return self._newest.get(key)

    def forget(self, key: Key) -> None:
        """The TrainingJob is gone."""
        self._newest.pop(key, None)
