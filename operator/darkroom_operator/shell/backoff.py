"""Pauses between things that go wrong quickly."""

import random


class Backoff:
    """Doubled after every quick end in a row, with jitter, up to a limit; something that lasted starts anew."""

    def __init__(self, first: float = 0.5, most: float = 30.0, lasting: float = 5.0) -> None:
        self._first, self._most, self._lasting = first, most, lasting
        self._quick = 0

    def after(self, lived: float) -> float:
        """Seconds to wait after something that lived this long."""
        self._quick = 0 if lived >= self._lasting else self._quick + 1
        pause = self._first * 2.0 ** min(max(self._quick - 1, 0), 20)
        return min(pause, self._most) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries
