"""A progress bar for who trains in a terminal."""

from typing import Any

from tqdm import tqdm


class Bar:
    """Steps of the run, drawn on stderr below whatever is printed."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def show(self, step: int, steps: int, text: str) -> None:
        """step of steps, and what else there is to say of the moment."""
        if self._bar is None:
            self._bar = tqdm(initial=step, total=steps, unit="step", dynamic_ncols=True, leave=False, mininterval=0)
        self._bar.total = steps  # a budget may have brought the end nearer
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        """A line above the bar."""
        tqdm.write(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
