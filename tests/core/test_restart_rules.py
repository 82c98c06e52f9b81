"""What the rules of spec.restart make of an attempt's end; they are judged one after the other."""

import json
from datetime import UTC, datetime

import pytest

from darkroom_api.report import Reason
from darkroom_api.v1alpha1.restart import Restart
from darkroom_operator.core.training_job.failures import Ending, Outcome, classify
from darkroom_operator.core.training_job.observe import Job, Pod, Terminated
from darkroom_operator.core.training_job.restart_rules import obey
from tests.core.test_plan import running
from tests.core.world import message

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def pod(index: int, code: int, text: str = "", *, reason: str = "Error", **fields) -> Pod:
    """A pod that ended; all end within the same second."""
    end = Terminated(code, reason, text, MOMENT)
    return Pod(f"flowers-1-{index}", f"uid-{index}", 1, index, "Failed", node="worker", terminated=end, **fields)


def judge(pods: list[Pod], *rules: dict, job: bool = True) -> Outcome:
    """How an attempt with these pods ends under these rules."""
    failed = Job("flowers-1", "uid", 1, MOMENT, ended="Failed", ended_at=MOMENT, reason="BackoffLimitExceeded")
    ending = Ending(job=failed if job else None, pods=pods, number=1, suspending=False)
    restart = Restart.from_wire(json.dumps({"rules": list(rules)}))
    return obey(restart.restart_rules or [], ending, classify(ending))


CRASH = [pod(0, 143, deleting=True), pod(1, 3)]
FAIL_3 = {"exitCodes": [2, 3], "action": "Fail"}
FREE_3 = {"exitCodes": [3], "action": "RestartForFree"}


@pytest.mark.parametrize(
    ("pods", "rules", "follows", "words"),
    [
        pytest.param(CRASH, [], "spends", "node 1", id="no rule: the default"),
        pytest.param(CRASH, [FAIL_3], "fails", "restart.rules[0]: exit code 3 -> Fail; node 1", id="by exit code"),
        pytest.param(CRASH, [FREE_3], "free", "restart.rules[0]: exit code 3 -> RestartForFree", id="for free"),
        pytest.param(CRASH, [FREE_3, FAIL_3], "free", "rules[0]", id="the first rule that matches"),
        pytest.param(
            CRASH,
            [{"exitCodes": [4], "action": "Fail"}, {"reasons": ["OutOfMemory"], "action": "Fail"}, FREE_3],
            "free",
            "rules[2]",
            id="rules that do not match are passed over",
        ),
        pytest.param(
            CRASH,
            [{"reasons": ["SoftwareError"], "action": "Fail"}],
            "fails",
            "restart.rules[0]: reason SoftwareError -> Fail; node 1",
            id="by reason",
        ),
        pytest.param(CRASH, [{"exitCodes": [143], "action": "Fail"}], "spends", "", id="told to leave is no cause"),
        pytest.param([pod(0, 1), pod(1, 3)], [FAIL_3], "fails", "exit code 3", id="not the first pod alone"),
        pytest.param(
            [pod(0, 65)], [{"exitCodes": [65], "action": "Restart"}], "spends", "exit code 65", id="against a default"
        ),
        pytest.param(
            [pod(0, 137, reason="OOMKilled")],
            [{"reasons": ["OutOfMemory"], "action": "Fail"}],
            "fails",
            "reason OutOfMemory -> Fail",
            id="no second try for lack of memory",
        ),
        pytest.param(
            [pod(0, 137, disrupted="preempted"), pod(1, 3)],
            [FAIL_3],
            "free",
            "preempted",
            id="exit codes after an eviction are its consequence",
        ),
        pytest.param(
            [pod(0, 137, disrupted="preempted")],
            [{"reasons": ["Disrupted"], "action": "Restart"}],
            "spends",
            "reason Disrupted -> Restart",
            id="disruptions that spend restarts",
        ),
        pytest.param(
            [pod(0, 137, disrupted="preempted")],
            [{"reasons": ["Disrupted"], "action": "Fail"}],
            "fails",
            "reason Disrupted -> Fail",
            id="disruptions that end it",
        ),
        pytest.param([pod(0, 75)], [{"exitCodes": [75], "action": "Fail"}], "fails", "code 75", id="75 of one's own"),
        pytest.param(
            [pod(0, 75, message(Reason.ASKED_TO_LEAVE, 75))],
            [{"exitCodes": [75], "action": "Fail"}],
            "free",
            "asked to leave",
            id="75 of a trainer that says that it was asked",
        ),
    ],
)
def test_rules(pods, rules, follows, words):
    outcome = judge(pods, *rules)
    free = outcome.free or outcome.result == "Disrupted"
    assert ("fails" if not outcome.retry else "free" if free else "spends") == follows
    assert words in outcome.message


def test_the_pod_that_matched_is_blamed():
    outcome = judge([pod(0, 1), pod(1, 3)], FAIL_3)
    assert outcome.failure is not None
    assert (outcome.failure.pod, outcome.failure.exit_code) == ("flowers-1-1", 3)


def test_a_reason_stays_what_it_was():
    """Who was killed for lack of memory is not merely "Killed" because a rule names 137."""
    outcome = judge([pod(0, 137), pod(1, 137, reason="OOMKilled")], {"exitCodes": [137], "action": "Fail"})
    assert (outcome.reason, outcome.failure and outcome.failure.pod) == ("OutOfMemory", "flowers-1-1")


def test_a_deleted_job_is_no_exit_code():
    assert judge([pod(0, 3, deleting=True)], FAIL_3, job=False).reason == "JobDeleted"
    assert not judge([], {"reasons": ["JobDeleted"], "action": "Fail"}, job=False).retry


def test_a_rule_that_fails_the_job_is_named_where_people_look():
    world = running(restart={"rules": [{"exitCodes": [9], "action": "Restart"}, {"exitCodes": [3], "action": "Fail"}]})
    world.end("flowers-1", 1, 3)
    world.leave("flowers-1", exit_code=143)
    world.settle()
    assert world.condition("Failed") == ("True", "RestartRule")
    assert world.ready_message.startswith("restart.rules[1]: exit code 3 -> Fail; node 1 in pod flowers-1-1 on worker")
    assert world.status["attempts"][0]["reason"] == "SoftwareError"
    assert world.status["failure"]["exitCode"] == 3
    assert "Job/flowers-2" not in world.created


def test_free_restarts_have_no_end_but_back_off():
    rules = [{"reasons": ["SoftwareError"], "action": "RestartForFree"}]
    world = running(restart={"maxRestarts": 0, "backoffSeconds": 10, "maxBackoffSeconds": 15, "rules": rules})
    for attempt, pause in ((1, 10), (2, 15), (3, 15)):
        world.run(f"flowers-{attempt}")
        world.settle()
        world.end(f"flowers-{attempt}", 0, 70)
        world.leave(f"flowers-{attempt}")
        world.settle()
        assert world.look().requeue_after == pytest.approx(pause)
        world.wait(pause)
        world.settle()
    assert (world.status["restarts"], world.status["disruptions"], world.status["attempt"]) == (0, 0, 4)
    assert {attempt["result"] for attempt in world.status["attempts"][:3]} == {"Failed"}


def test_rules_may_be_changed_while_an_attempt_runs():
    world = running()
    world.edit(restart={"rules": [{"exitCodes": [3], "action": "Fail"}]})
    world.end("flowers-1", 1, 3)
    world.leave("flowers-1")
    world.settle()
    assert world.status["finished"]
