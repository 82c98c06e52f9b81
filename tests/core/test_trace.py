"""A finished job as a trace."""

import copy
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from darkroom_api.report import Reason
from darkroom_operator.core.accounting import WIRE_BUCKETS
from darkroom_operator.core.conditions import timestamp
from darkroom_operator.core.training_job.plan import plan
from darkroom_operator.core.training_job.trace import PHASES, is_due, trace_id, trace_of
from tests.core.world import START, World, message

SPENT = {"startup": 5, "rendezvous": 2, "compute": 30, "dataWait": 10, "checkpoint": 3}


@pytest.fixture
def world() -> World:
    """A job whose first attempt crashed after a minute and whose second did not."""
    world = World(numNodes=1, restart={"backoffSeconds": 5})
    world.body["metadata"]["creationTimestamp"] = timestamp(START)
    world.wait(3)
    for attempt, (code, reason) in enumerate([(70, Reason.SOFTWARE_ERROR), (0, Reason.COMPLETED)], start=1):
        world.settle()
        world.wait(10)
        world.run(f"flowers-{attempt}")
        world.settle()
        world.wait(60)
        said = message(
            reason, code, time=SPENT, step=10, checkpoint_step=10, error="ValueError: boom" if code else None
        )
        world.end(f"flowers-{attempt}", 0, code, said)
        world.settle()
        world.wait(5)
    assert world.status["state"] == "Complete"
    return world


def test_the_job_has_its_attempts_and_each_attempt_its_phases(world):
    root, *rest = trace_of(world.body).spans
    attempts = [span for span in rest if span.name == "attempt"]
    assert (root.start, root.parent_id, root.error) == (START, None, None)
    assert root.attributes["darkroom.restarts"] == 1
    assert root.attributes["darkroom.reason"] == "Completed"
    assert [span.attributes["darkroom.attempt.result"] for span in attempts] == ["Failed", "Succeeded"]
    assert "ValueError: boom" in attempts[0].error
    assert attempts[1].error is None
    for span, record in zip(attempts, world.status["attempts"], strict=True):
        assert span.parent_id == root.span_id
        phases = [phase for phase in rest if phase.parent_id == span.span_id]
        assert [phase.name for phase in phases] == [name for name in PHASES if name in record["time"]]
        assert (phases[0].start, phases[-1].end) == (span.start, span.end), "they fill it"
        assert all(one.end == next_one.start for one, next_one in pairwise(phases))
        lasted = {phase.name: (phase.end - phase.start).total_seconds() for phase in phases}
        assert (lasted["queued"], lasted["startup"], lasted["compute"]) == (10, 5, 30)


def test_the_ids_are_the_jobs_and_differ_from_each_other(world):
    trace = trace_of(world.body)
    assert trace == trace_of(copy.deepcopy(world.body)), "sent again, it is the same"
    assert trace.trace_id == trace_id("uid-of-flowers")
    assert trace_of(world.body | {"metadata": world.body["metadata"] | {"uid": "b"}}).trace_id != trace.trace_id
    ids = [span.span_id for span in trace.spans]
    assert len(set(ids)) == len(ids)
    assert all(0 < span_id < 2**64 for span_id in ids)
    assert 0 < trace.trace_id < 2**128


def test_a_job_that_failed_says_why(world):
    world.body["status"] |= {"state": "Failed"}
    root = trace_of(world.body).spans[0]
    assert root.error == next(c["message"] for c in world.status["conditions"] if c["type"] == "Ready")


def test_every_bucket_of_time_is_a_phase():
    assert set(PHASES) == set(WIRE_BUCKETS)


def ended(**status: Any) -> dict[str, Any]:
    return {"metadata": {}, "status": {"finished": True, "completionTime": timestamp(START)} | status}


@pytest.mark.parametrize(
    ("body", "hours", "due"),
    [
        pytest.param(ended(), 1, True, id="it has just ended"),
        pytest.param(ended(), 25, False, id="long ago"),
        pytest.param(ended(traceId="0" * 32), 1, False, id="it was sent"),
        pytest.param(ended(finished=False), 1, False, id="it runs"),
        pytest.param({"metadata": {}}, 1, False, id="new"),
    ],
)
def test_is_due(body, hours, due):
    assert is_due(body, START + timedelta(hours=hours)) is due


def test_the_status_keeps_the_id_once_it_was_sent_and_is_written_for_it_once(world):
    assert plan(world.facts()).status is None
    sent = replace(world.facts(), trace_id="f" * 32)
    status = plan(sent).status
    assert status == world.status | {"traceId": "f" * 32}
    assert plan(replace(sent, body=world.body | {"status": status})).status is None
