"""What time it is for the API server, whose clock made the timestamps that decisions compare with (docs/adr/0023).

Every answer over HTTP has a Date (RFC 9110 section 6.6.1), in whole seconds. It was made between our sending the request and
our receiving the answer, so it bounds how far the server's clock is from ours (F. Cristian, "Probabilistic clock
synchronization", 1989).
"""

from dataclasses import dataclass

STEP_SECONDS = 2.0
"""An answer that contradicts the estimate by more than this may come from something between us and the API server."""
CONFIRMATIONS = 3
"""So many such answers in a row are believed."""


@dataclass(frozen=True)
class Sample:
    """One answer. `sent` and `received` are local monotonic seconds, `date` is the server's Unix time, without its fraction."""

    sent: float
    received: float
    date: float

    @property
    def least(self) -> float:
        """The smallest offset that explains the answer."""
        return self.date - self.received

    @property
    def most(self) -> float:
        """The largest one."""
        return self.date + 1 - self.sent


@dataclass(frozen=True)
class Offset:
    """The server's Unix time less the local monotonic clock, in seconds: an estimate."""

    seconds: float
    contradicted: int = 0
    """By so many answers in a row."""


def adjusted(known: Offset | None, sample: Sample) -> Offset:
    """The estimate after one more answer: moved as little as the answer allows, and across a gap only when it is confirmed."""
    middle = (sample.least + sample.most) / 2
    if known is None:
        return Offset(middle)
    nearest = min(max(known.seconds, sample.least), sample.most)
    if abs(nearest - known.seconds) <= STEP_SECONDS:
        return Offset(nearest)
    if known.contradicted + 1 < CONFIRMATIONS:
        return Offset(known.seconds, known.contradicted + 1)
    return Offset(middle)
