"""What must hold after a kill-anything hour (bench/chaos.py): nothing lost, doubled, or restarted without a cause. Pure."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Body = Mapping[str, Any]


def violations(
    made: Mapping[str, int],
    jobs: Sequence[Body],
    sweeps: Sequence[Body],
    pods: Sequence[Body],
    creations: Counter[str],
    logs: str,
) -> list[str]:
    """A sentence for each; `made`: objects created, by kind; `creations`: how often each Job was, by the audit log."""
    single = [body for body in jobs if "darkroom.dev/tuning-sweep" not in body["metadata"].get("labels", {})]
    found = list(_lost(made, single, sweeps))
    for body in jobs:
        found += _of_job(body)
        found += _doubled(body, creations)
    for body in sweeps:
        found += _of_sweep(body, [job["metadata"]["name"] for job in jobs])
    left = [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]
    found += [f"pod {name} is left" for name in left]
    bugs = (line for line in logs.splitlines() if "Traceback" in line and "LeaseLost" not in line)
    return [*found, *(f"an operator's log has a traceback: {line[:2000]}" for line in bugs)]


def _lost(made: Mapping[str, int], jobs: Sequence[Body], sweeps: Sequence[Body]) -> Iterator[str]:
    for kind, bodies in (("TrainingJob", jobs), ("TuningSweep", sweeps)):
        if len(bodies) != made.get(kind, 0):
            yield f"{made.get(kind, 0)} {kind}s were made, there are {len(bodies)}"
        for body in bodies:
            if body.get("status", {}).get("state") != "Complete":
                yield f"{kind} {body['metadata']['name']} is not Complete: {body.get('status')}"


def _of_job(body: Body) -> Iterator[str]:
    """Every attempt but the last has a cause, each cause is counted once, and no two were at the same time."""
    name, status = body["metadata"]["name"], body.get("status", {})
    attempts = status.get("attempts", [])
    if [attempt["number"] for attempt in attempts] != list(range(attempts[0]["number"], attempts[-1]["number"] + 1)):
        yield f"{name}: attempts are missing: {attempts}"
    results = Counter(attempt["result"] for attempt in attempts)
    if attempts[0]["number"] == 1 and (results["Failed"], results["Disrupted"]) != (
        status.get("restarts", 0),
        status.get("disruptions", 0),
    ):
        yield f"{name}: {results} of attempts, {status.get('restarts')} restarts, {status.get('disruptions')} disruptions"
    for before, after in itertools.pairwise(attempts):
        if before["result"] not in ("Failed", "Disrupted"):
            yield f"{name}: attempt {after['number']} has no cause: {before}"
        if after["startTime"] < before["endTime"]:
            yield f"{name}: attempt {after['number']} began before {before['number']} had ended: {before}, {after}"


def _doubled(body: Body, creations: Counter[str]) -> Iterator[str]:
    name = body["metadata"]["name"]
    for attempt in body.get("status", {}).get("attempts", []):
        if (times := creations[f"{name}-{attempt['number']}"]) != 1:
            yield f"Job {name}-{attempt['number']} was created {times} times"
    last = body.get("status", {}).get("attempt", 0)
    if creations[f"{name}-{last + 1}"]:
        yield f"Job {name}-{last + 1} was created after the last attempt"


def _of_sweep(body: Body, jobs: Sequence[str]) -> Iterator[str]:
    name, trials = body["metadata"]["name"], body["spec"]["stopping"]["maxTrials"]
    wanted = list(range(trials))
    ledger = body.get("status", {}).get("ledger", [])
    if sorted(row["number"] for row in ledger) != wanted:
        yield f"{name}: the ledger has {[row['number'] for row in ledger]}"
    if sorted(job for job in jobs if job.startswith(f"{name}-")) != [f"{name}-{number:05d}" for number in wanted]:
        yield f"{name}: trials are missing or doubled"
    yield from (
        f"{name}: trial {row['number']} ended {row['result']}" for row in ledger if row["result"] != "Succeeded"
    )
