"""The one clock of the operator: the API server's. Our own may be wrong, and nothing in the cluster was written by it."""

import logging
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from darkroom_operator.core.clock import Offset, Sample, adjusted

log = logging.getLogger(__name__)
SKEW_SECONDS = 5.0
"""A difference of more is worth a warning."""


class Clock:
    """The API server's time, by the Date of its answers; between two of them it runs with our monotonic clock."""

    def __init__(self) -> None:
        self._offset: Offset | None = None
        self._warned = False

    def heard(self, date: str, sent: float, received: float) -> None:
        """The Date of an answer, and the monotonic times between which it was made. One that cannot be read is passed over."""
        try:
            told = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        self._offset = adjusted(self._offset, Sample(sent, received, told))
        self._watch_skew()

    def now(self) -> datetime:
        """The API server's time; ours before its first answer."""
        if self._offset is None:
            return datetime.now(UTC)
        return datetime.fromtimestamp(self._offset.seconds + time.monotonic(), UTC)

    def skew(self) -> float:
        """Seconds by which our own clock is ahead of the API server's."""
        return time.time() - self.now().timestamp()

    def _watch_skew(self) -> None:
        skewed = abs(skew := self.skew()) > SKEW_SECONDS
        if skewed and not self._warned:
            log.warning("this node's clock is %+.0f s off the API server's, by which the operator goes", skew)
        self._warned = skewed
