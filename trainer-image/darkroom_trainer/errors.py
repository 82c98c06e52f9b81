"""Errors that end a run with an exit code of their own; the message names the field or the file."""

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


class DivergenceError(TrainerError):
    """The loss is not a number any more."""


class StorageError(TrainerError):
    """A checkpoint or the model could not be written; those that were written before are untouched."""


class PeerLostError(TrainerError):
    """Another process of the group went away: a consequence, the cause stands in that process's own message."""

    reason = Reason.PEER_LOST


def headline(error: BaseException) -> str:
    """Class and first line of an error; errors of our own speak for themselves."""
    line = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, TrainerError) and line:
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
