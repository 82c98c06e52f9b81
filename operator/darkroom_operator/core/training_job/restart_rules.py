"""The user's exceptions from the defaults of `failures`: the first rule of spec.restart.rules that matches decides."""

from collections.abc import Sequence
from dataclasses import replace

from darkroom_api import names
from darkroom_api.v1alpha1.restart import RestartAction, RestartRule
from darkroom_operator.core.training_job.failures import (
    DISRUPTED,
    FAILED,
    SUCCEEDED,
    SUSPENDED,
    Ending,
    Outcome,
    blame,
    culprits,
    exit_code,
)
from darkroom_operator.core.training_job.observe import Pod

_PODS_WERE_TAKEN = (names.REASON_DISRUPTED, names.REASON_JOB_DELETED)
"""Exit codes of such an attempt follow from what was done to its pods, as do those after a verdict of the operator."""


def obey(rules: Sequence[RestartRule], ending: Ending, outcome: Outcome) -> Outcome:
    """The outcome as the first rule that matches has it; without one, as it was."""
    if outcome.result in (SUCCEEDED, SUSPENDED):
        return outcome
    for number, rule in enumerate(rules):
        if rule.reasons and outcome.reason in rule.reasons:
            return _decided(number, rule, outcome, f"reason {outcome.reason}")
        if pod := _pod_with_code(rule, ending, outcome):
            return _decided(number, rule, _blaming(pod, ending, outcome), f"exit code {exit_code(pod)}")
    return outcome


def _pod_with_code(rule: RestartRule, ending: Ending, outcome: Outcome) -> Pod | None:
    """The pod that the rule's exit codes mean: rather the one that is blamed anyway, else the first to end.

    Every pod counts, not the first alone: ranks of a gang fall within the same second, which is all that kubelet tells.
    """
    if not rule.exit_codes or ending.verdict or outcome.reason in _PODS_WERE_TAKEN:
        return None
    matches = [pod for pod in culprits(ending) if exit_code(pod) in rule.exit_codes]
    return next((pod for pod in matches if _is_blamed(pod, outcome)), matches[0] if matches else None)


def _is_blamed(pod: Pod, outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.pod == pod.name


def _blaming(pod: Pod, ending: Ending, outcome: Outcome) -> Outcome:
    return outcome if _is_blamed(pod, outcome) else blame(ending, pod)


def _decided(number: int, rule: RestartRule, outcome: Outcome, why: str) -> Outcome:
    free = rule.action == RestartAction.RESTART_FOR_FREE
    words = f"restart.rules[{number}]: {why} -> {rule.action}; {outcome.message}"
    return replace(
        outcome,
        result=DISRUPTED if free and outcome.result == DISRUPTED else FAILED,
        retry=rule.action != RestartAction.FAIL,
        free=free,
        by_rule=True,
        message=words[:1024],
    )
