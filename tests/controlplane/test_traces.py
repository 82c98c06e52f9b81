"""Traces of real jobs, as a collector gets them from a real operator."""

import time

import pytest

from darkroom_api.report import Reason, TerminationMessage
from tests.flowers import Flowers
from tests.kube import eventually

pytestmark = pytest.mark.cluster
SPENT = {"startup": 0.1, "rendezvous": 0.1, "dataWait": 0.1, "compute": 0.3, "evaluation": 0.1, "checkpoint": 0.05}


def words(reason: Reason, code: int) -> str:
    return TerminationMessage(
        reason=reason, exit_code=code, error="ValueError: boom" if code else None, time=SPENT
    ).encode()


def traced(job: Flowers) -> str:
    """The id of the job's trace, once its status has it."""
    return eventually(lambda: job.status.get("traceId"), within=60, what=f"a trace: {job.status}")


def test_the_life_of_a_job(flowers, collector):
    job = flowers(numNodes=1)
    job.reaches("Running")
    job.end(1, 70, termination_message=words(Reason.SOFTWARE_ERROR, 70))
    eventually(lambda: job.status.get("attempt") == 2, what="second attempt")
    job.reaches("Running")
    time.sleep(2.5)  # Kubernetes tells times in whole seconds
    job.end(2, 0, termination_message=words(Reason.COMPLETED, 0))
    status = job.reaches("Complete")
    spans = collector.trace(traced(job))
    root, attempts = spans[0], [span for span in spans if span.name == "attempt"]
    assert (root.name, root.parent, root.error, root.service) == ("TrainingJob", "", None, "darkroom-operator")
    assert root.attributes["k8s.namespace.name"] == job.namespace
    assert (root.attributes["darkroom.reason"], root.attributes["darkroom.restarts"]) == ("Completed", 1)
    assert [(span.parent, span.attributes["darkroom.attempt.number"]) for span in attempts] == [
        (root.id, 1),
        (root.id, 2),
    ]
    assert "ValueError: boom" in attempts[0].error
    assert attempts[1].error is None
    assert len({span.id for span in spans}) == len(spans)
    for span, attempt in zip(attempts, status["attempts"], strict=True):
        phases = [phase for phase in spans if phase.parent == span.id]
        assert {phase.name: pytest.approx(phase.seconds, abs=1e-5) for phase in phases} == {
            name: float(seconds) for name, seconds in attempt["time"].items()
        }
        assert sum(phase.seconds for phase in phases) == pytest.approx(span.seconds, abs=0.01)
        assert root.start <= span.start <= span.end <= root.end
    assert {"startup", "rendezvous", "compute"} <= {span.name for span in spans if span.parent == attempts[1].id}


def complete(job: Flowers) -> Flowers:
    job.reaches("Running", within=60)
    job.end(1, 0)
    job.reaches("Complete", within=60)
    return job


def test_a_collector_that_is_away_holds_nothing_up_misses_nothing_and_gets_nothing_twice(flowers, collector, operator):
    """Whether the operator that is restarted meanwhile had told of a job or not."""
    told = traced(complete(flowers(name="told", numNodes=1)))
    collector.refuse = 503
    untold = complete(flowers(numNodes=1))
    before = collector.refused
    eventually(lambda: collector.refused > before, what="a try")
    assert "traceId" not in complete(flowers(name="other", numNodes=1)).status
    assert operator.stop() == 0, "while it tries"
    collector.refuse = None
    operator.start()
    for trace in (told, traced(untold)):
        assert [span.name for span in collector.trace(trace)].count("TrainingJob") == 1
