"""What happens after a failed attempt."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Model, Rule


class RestartAction(StrEnum):
    """What a rule decides."""

    RESTART = "Restart"
    RESTART_FOR_FREE = "RestartForFree"
    FAIL = "Fail"


class RestartReason(StrEnum):
    """Why an attempt ended, as far as rules may tell reasons apart: `status.attempts[].reason`."""

    OUT_OF_MEMORY = "OutOfMemory"
    SOFTWARE_ERROR = "SoftwareError"
    KILLED = "Killed"
    PEER_LOST = "PeerLost"
    NO_PROGRESS = "NoProgress"
    DATA_ERROR = "DataError"
    CONFIG_ERROR = "ConfigError"
    DISRUPTED = "Disrupted"
    ASKED_TO_LEAVE = "AskedToLeave"
    JOB_DELETED = "JobDeleted"
    STARTUP_DEADLINE_EXCEEDED = "StartupDeadlineExceeded"


class RestartRule(Model):
    """A rule over the defaults: if it matches how an attempt ended, its action is what follows."""

    rules = (
        Rule(
            cel="has(self.exitCodes) != has(self.reasons)",
            message="exactly one of exitCodes and reasons must be set",
            holds=lambda r: (r.exit_codes is None) != (r.reasons is None),
        ),
    )
    exit_codes: Annotated[
        list[Annotated[int, Field(ge=1, le=255, description="Exit code of a container; 0 is no failure.")]] | None,
        Field(
            min_length=1,
            max_length=32,
            description="Matches if a pod ended with one of these codes by itself. Pods that were evicted, or told to leave "
            "because another had failed, do not count.",
        ),
    ] = None
    reasons: Annotated[
        list[RestartReason] | None,
        Field(
            min_length=1,
            max_length=16,
            description="Matches if the attempt ended for one of these reasons, as status.attempts[].reason has them.",
        ),
    ] = None
    action: Annotated[
        RestartAction,
        Field(
            description="Restart: the next attempt, spending one of maxRestarts. RestartForFree: the next attempt, as often as "
            "it takes; backoffSeconds and activeDeadlineSeconds still hold. Fail: no further attempt."
        ),
    ]


class Restart(Model):
    """What happens after a failed attempt. Lost nodes, evictions and preemptions never spend a restart, unless a rule says so."""

    rules = (
        Rule(
            # both are there once defaults are filled in; the API server also tries the rule on the default itself, which is {}
            cel="!has(self.backoffSeconds) || !has(self.maxBackoffSeconds) || self.backoffSeconds <= self.maxBackoffSeconds",
            message="backoffSeconds must not be larger than maxBackoffSeconds",
            holds=lambda r: r.backoff_seconds <= r.max_backoff_seconds,
            field="backoffSeconds",
        ),
    )
    max_restarts: Annotated[
        int,
        Field(
            ge=0, le=100, description="Failures of the training itself that are retried. May be changed while running."
        ),
    ] = 3
    backoff_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            description="Wait before the next attempt; doubles with each in a row that ended within ten minutes, up to "
            "maxBackoffSeconds.",
        ),
    ] = 10
    max_backoff_seconds: Annotated[int, Field(ge=0, le=86400, description="Longest wait before the next attempt.")] = (
        600
    )
    restart_rules: Annotated[
        list[RestartRule] | None,
        Field(
            alias="rules",  # the name that a Model's own rules have in Python
            max_length=20,
            description="Exceptions from the defaults, judged when an attempt has ended: the first that matches decides. Without "
            "one, exit codes 65, 78 and 79 and a missed startup deadline fail the job, disruptions restart it for free, and "
            "everything else spends one of maxRestarts.",
        ),
    ] = None
