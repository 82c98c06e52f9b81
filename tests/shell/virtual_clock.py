"""An event loop whose clock jumps to the next thing that is due: hours of back-off pass in milliseconds."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Jump(selectors.DefaultSelector):
    """Does not wait: it moves the clock on by what it would have waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits and nothing is due: a deadlock")
        self.now += max(timeout, 1e-6)  # a turn of the loop takes time, or rounding could hold the clock still
        return super().select(0)


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Time begins at 0."""

    def __init__(self) -> None:
        self.clock = _Jump()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """As asyncio.run, with the clock above."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)
