"""What /metrics says: values, and bounds on what users can make it say. Without a cluster."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from darkroom_operator.core import series
from darkroom_operator.core.conditions import timestamp
from darkroom_operator.shell.clock import Clock
from darkroom_operator.shell.collectors import JobStates, ObjectSeries, SweepStates
from darkroom_operator.shell.metrics import Metrics
from tests.prometheus import families, promtool

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/observability.md"
PLACE = {"namespace": "vision", "profile": "gpu"}


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.profiles = {"gpu"}
    return metrics


def job(name: str = "flowers", profile: str = "gpu", **status: Any) -> dict[str, Any]:
    meta = {"namespace": "vision", "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": {"profile": profile}, "status": status}


def attempt(**fields: str) -> dict[str, Any]:
    return {"number": 1, "uid": "u", "startTime": "2026-01-01T00:00:00Z", "result": "Running"} | fields


def test_a_wait_is_counted_when_the_attempt_runs_and_once(metrics):
    queued = attempt(admittedTime="2026-01-01T00:01:00Z")
    running = queued | {"runningTime": "2026-01-01T00:01:30Z"}
    for old, new in ((attempt(), queued), (queued, running), (running, running)):
        metrics.count_changes(job(), {"attempts": [old]}, {"attempts": [new]})
    read = metrics.registry.get_sample_value
    assert read("darkroom_queue_wait_seconds_sum", PLACE) == 60
    assert read("darkroom_start_wait_seconds_sum", PLACE) == 90
    assert read("darkroom_start_wait_seconds_count", PLACE) == 1
    assert read("darkroom_start_wait_seconds_bucket", PLACE | {"le": "60.0"}) == 0
    assert read("darkroom_start_wait_seconds_bucket", PLACE | {"le": "300.0"}) == 1


def test_an_attempt_without_a_queue_waits_in_none(metrics):
    running = attempt(runningTime="2026-01-01T00:00:05Z")
    metrics.count_changes(job(), {}, {"attempts": [running]})
    read = metrics.registry.get_sample_value
    assert read("darkroom_queue_wait_seconds_count", PLACE) is None
    assert read("darkroom_start_wait_seconds_sum", PLACE) == 5


def test_users_can_add_no_series(metrics):
    """Whatever a thousand jobs are called and ask for, the series are those of one place."""
    bodies = [job(f"job-{number}", profile=f"profile-{number}", state="Stalled") for number in range(1000)]
    metrics.registry.register(JobStates(lambda: bodies, metrics.place, lambda _: series.Held(0, 0)))
    metrics.registry.register(SweepStates(lambda: bodies))
    ended = {"state": "Failed", "finished": True, "conditions": [{"type": "Ready", "reason": "DeadlineExceeded"}]}
    ended |= {"attempts": [attempt(endTime="2026-01-01T00:00:05Z", result="Failed", reason="SoftwareError")]}
    for body in bodies:
        metrics.count_changes(body, {}, ended | {"nodeHours": "1", "time": {"compute": "1"}})
    text = generate_latest(metrics.registry).decode()
    assert not re.search(r"job-\d|profile-\d", text)
    unknown = {"namespace": "vision", "profile": "unknown"}
    read = metrics.registry.get_sample_value
    assert read("darkroom_trainingjobs", unknown | {"state": "Stalled"}) == 1000
    assert read("darkroom_attempts_total", unknown | {"result": "Failed", "reason": "SoftwareError"}) == 1000
    assert read("darkroom_node_seconds_total", unknown) == 3_600_000


def test_jobs_are_counted_with_what_they_hold(metrics):
    bodies = [job("a", state="Running"), job("b", state="Running"), job("c")]
    held = {"a": series.Held(2, 16), "b": series.Held(1, 8), "c": series.Held(0, 0)}
    metrics.registry.register(JobStates(lambda: bodies, metrics.place, lambda body: held[body["metadata"]["name"]]))
    read = metrics.registry.get_sample_value
    assert read("darkroom_trainingjobs", PLACE | {"state": "Running"}) == 2
    assert read("darkroom_trainingjobs", PLACE | {"state": "Pending"}) == 1
    assert read("darkroom_nodes_in_use", PLACE) == 3
    assert read("darkroom_accelerators_in_use", PLACE) == 24


def test_a_job_has_series_of_its_own_until_it_has_been_gone_or_finished_for_some_time(metrics):
    bodies = [
        job("runs", restarts=3),
        job("more"),
        job("done", finished=True, completionTime=timestamp(datetime.now(UTC))),
    ]
    bodies += [job("old", finished=True, completionTime="2026-01-01T00:00:00Z")]
    metrics.registry.register(ObjectSeries(lambda: bodies, series.OF_JOB, limit=2, keep_seconds=60, now=Clock().now))
    read = metrics.registry.get_sample_value
    name = "darkroom_trainingjob_restarts"
    assert read(name, {"namespace": "vision", "name": "runs"}) == 3
    assert read("darkroom_trainingjob_nodes", {"namespace": "vision", "name": "done"}) is None, "no place is left"
    assert read("darkroom_trainingjobs_without_series") == 1
    bodies.pop(0)
    assert read(name, {"namespace": "vision", "name": "runs"}) is None
    assert read("darkroom_trainingjob_nodes", {"namespace": "vision", "name": "done"}) == 0
    assert read("darkroom_trainingjob_nodes", {"namespace": "vision", "name": "old"}) is None
    assert read("darkroom_trainingjobs_without_series") == 0


def test_a_metric_that_is_reported_twice_is_one_series(metrics):
    twice = [{"name": "loss", "value": "2"}, {"name": "loss", "value": "1"}]
    metrics.registry.register(
        ObjectSeries(
            lambda: [job(progress={"metrics": twice})], series.OF_JOB, limit=1, keep_seconds=0, now=Clock().now
        )
    )
    text = generate_latest(metrics.registry).decode()
    assert re.findall(r"^darkroom_trainingjob_metric{.*", text, re.MULTILINE) == [
        'darkroom_trainingjob_metric{metric="loss",name="flowers",namespace="vision"} 1.0'
    ]


def test_an_increase_shows_from_the_first_on(metrics):
    """Prometheus counts from the first value that it sees: what begins at 1 never rose."""
    metrics.count_changes(job(), {}, {"attempts": [attempt()]})
    read = metrics.registry.get_sample_value
    ending = PLACE | {"result": "Failed", "reason": "SoftwareError"}
    assert read("darkroom_attempts_total", ending) == 0
    assert read("darkroom_trainingjobs_finished_total", PLACE | {"result": "Complete", "reason": "Completed"}) == 0
    assert read("darkroom_time_seconds_total", PLACE | {"bucket": "lostWork"}) == 0
    assert read("darkroom_node_seconds_total", PLACE) == 0
    metrics.count_changes(
        job(),
        {"attempts": [attempt()]},
        {"attempts": [attempt(endTime="2026-01-01T00:00:05Z", result="Failed", reason="SoftwareError")]},
    )
    assert read("darkroom_attempts_total", ending) == 1


def test_promtool_has_nothing_against_the_names(metrics):
    """With a sample in every family, for it looks at nothing else."""
    status = {"attempts": [attempt(runningTime="2026-01-01T00:00:05Z")], "cost": "1 EUR"}
    metrics.count_changes(job(), {}, status)
    metrics.registry.register(ObjectSeries(lambda: [job()], series.OF_JOB, limit=1, keep_seconds=0, now=Clock().now))
    metrics.registry.register(JobStates(lambda: [job()], metrics.place, lambda _: series.Held(1, 1)))
    metrics.queue("trainingjobs")
    done = promtool("check", "metrics", text=generate_latest(metrics.registry).decode())
    assert (done.returncode, done.stderr) == (0, "")


def test_the_guide_has_a_row_for_each_metric():
    told = [
        line for line in GUIDE.read_text().splitlines() if line.startswith(("| `darkroom_", "| `work", "| `leader"))
    ]
    rows = [f"| `{f.name}` | {f.type} | {', '.join(f.labels)} | {f.text} |" for f in families()]
    assert sorted(told) == sorted(rows)
