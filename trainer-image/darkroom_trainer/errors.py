"""Errors that end a run with an exit code of their own; the message names the field or the file."""

import errno
import re
from collections.abc import Iterator
from typing import Self

from darkroom_api.report import ExitCode, Reason


class TrainerError(Exception):
    """Base: what the launcher turns into an exit code and a reason."""

    exit_code = ExitCode.SOFTWARE_ERROR
    reason = Reason.SOFTWARE_ERROR


class DataError(TrainerError):
    """The images or labels cannot be used; no restart can help."""

    exit_code = ExitCode.DATA_ERROR
    reason = Reason.DATA_ERROR


class ConfigError(TrainerError):
    """The configuration or the weights cannot be used; no restart can help."""

    exit_code = ExitCode.CONFIG_ERROR
    reason = Reason.CONFIG_ERROR


class FidelityError(TrainerError):
    """Synthetic images are further from the real ones than the gate allows; no restart can help."""

    exit_code = ExitCode.FIDELITY_TOO_LOW
    reason = Reason.FIDELITY_TOO_LOW


class DivergenceError(TrainerError):
    """The loss is not a number any more, or many times what it was."""

    @classmethod
    def after(cls, step: int, *, steps: int, learning_rate: float) -> Self:
        """Found at `step`, for the first time in so many steps."""
        return cls(
            f"the loss stopped being a number between steps {step - steps + 1} and {step}, at learning rate "
            f"{learning_rate:.3g}: lower vision.optimizer.learningRate, or set vision.optimizer.clipNorm"
        )

    @classmethod
    def exploded(cls, step: int, *, steps: int, learning_rate: float, first: float, loss: float) -> Self:
        """The mean of so many steps before `step`, against that of the first ones."""
        return cls(
            f"the loss grew from {first:.4g} to {loss:.4g} in steps {step - steps + 1} to {step}, at learning rate "
            f"{learning_rate:.3g}: lower vision.optimizer.learningRate, or set vision.optimizer.clipNorm"
        )


class StorageError(TrainerError):
    """A volume failed: images cannot be read, or a checkpoint not written. Those that were written are untouched."""


class PeerLostError(TrainerError):
    """Another process of the group went away: a consequence, the cause stands in that process's own message."""

    reason = Reason.PEER_LOST


_IN_LOADER = re.compile(r"Caught \w+ in DataLoader worker process \d+\.")


def headline(error: BaseException) -> str:
    """Class and first line of an error; errors of our own speak for themselves.

    What a loader process raised arrives as the text of its traceback, whose last line is the error.
    """
    lines = str(error).strip().splitlines()
    line = next(iter(lines), "")
    if _IN_LOADER.match(line):
        line = lines[-1].partition(": ")[2]
    if isinstance(error, TrainerError) and line:
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def is_full(error: BaseException) -> bool:
    """Whether the volume ran out of space or quota: safetensors says it in words, torch with another error on top."""
    return any(
        getattr(link, "errno", None) in {errno.ENOSPC, errno.EDQUOT} or "No space left" in str(link)
        for link in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
