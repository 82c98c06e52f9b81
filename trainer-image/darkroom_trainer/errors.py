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
