"""The operator with many jobs: a burst of TrainingJobs of 4 pods at once, then a restart with many finished ones.

SCALE_JOBS (1,000) sizes the burst, SCALE_FINISHED (5,000) the restart, SCALE_NODES (500) the cluster of fake nodes. The bench,
the operator, etcd, API server, controller manager, scheduler and KWOK share this machine: seconds are those of such a
neighbourhood, CPU seconds, requests and memory are the operator's own.
"""

import os
import re
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

from bench.load import Connections, Recorder, at_once
from bench.stage import SPEC, stage
from bench.usage import Sampler, usage
from localcluster import Cluster
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess

JOBS, FINISHED = int(os.environ.get("SCALE_JOBS", "1000")), int(os.environ.get("SCALE_FINISHED", "5000"))
NODES, PODS = int(os.environ.get("SCALE_NODES", "500")), 4
NAMESPACE = "default"
PATIENCE = 1800.0
_REQUESTS = re.compile(r'darkroom_api_requests_total\{code="\d+",resource="(\w*)",verb="(\w+)"\} (\S+)')


def run() -> dict[str, Any]:
    """Findings by name; seconds unless the name says otherwise."""
    with stage(f"kwok:{NODES}") as (cluster, kube, folder):
        operator = OperatorProcess(cluster.kubeconfig, folder / "profiles.yaml", folder / "operator.log")
        try:
            _start(operator)
            burst = _burst(kube, operator)
            life = _finish_all(kube, operator)
        finally:
            operator.kill()
        return {"burst": burst, "whole_life": life, "restart": _restart(cluster, kube, folder)}


def _burst(kube: Kube, operator: OperatorProcess) -> dict[str, Any]:
    """All at once, until the status of each says Running."""
    asked: dict[str, float] = {}
    connections, path, before = Connections(kube), kube.path("TrainingJob", NAMESPACE), usage(operator)

    def create(name: str) -> None:
        asked[name] = time.monotonic()
        connections.request("POST", path, training_job(name))

    with Recorder(kube, "TrainingJob", NAMESPACE) as jobs, Recorder(kube, "Job", NAMESPACE) as children:
        with Sampler(operator) as sampler:
            at_once(create, [f"job-{number}" for number in range(JOBS)])
            created = max(asked.values()) - min(asked.values())
            eventually(lambda: len(jobs.in_state("Running")) == JOBS, within=PATIENCE, what="every job runs")
        made = {name.removesuffix("-1"): when for name, when in children.seen.items()}
        running = jobs.in_state("Running")
    used = usage(operator)
    return {
        "jobs": JOBS,
        "pods_of_each": PODS,
        "created_within": round(created, 1),
        "running_within": round(max(running.values()) - min(asked.values()), 1),
        "apply_to_job": _percentiles([made[name] - asked[name] for name in asked]),
        "watch_event_to_job": _percentiles([made[name] - jobs.seen[name] for name in asked]),
        "apply_to_running": _percentiles([running[name] - asked[name] for name in asked]),
        "operator_cpu_ms_per_job": round((used.cpu_seconds - before.cpu_seconds) / JOBS * 1000, 1),
        "operator_rss_mib": used.rss_mib,
        "queue_depth_most": sampler.most("workqueue_depth"),
        "requests_per_job": _requests_per_job(operator),
    }


def _finish_all(kube: Kube, operator: OperatorProcess) -> dict[str, Any]:
    """Every pod ends with 0; from creation to the end of all."""
    connections, ending = Connections(kube), {"metadata": {"annotations": {"localcluster.darkroom.dev/exit-code": "0"}}}
    pods = [pod["metadata"]["name"] for pod in kube.list("Pod", NAMESPACE)]
    with Recorder(kube, "TrainingJob", NAMESPACE) as jobs:
        at_once(
            lambda pod: connections.request(
                "PATCH", kube.path("Pod", NAMESPACE, pod), ending, "application/merge-patch+json"
            ),
            pods,
        )
        eventually(lambda: len(jobs.in_state("Complete")) == JOBS, within=PATIENCE, what="every job is complete")
    used = usage(operator)
    return {
        "operator_cpu_ms_per_job": round(used.cpu_seconds / JOBS * 1000, 1),
        "operator_rss_mib": used.rss_mib,
        "requests_per_job": _requests_per_job(operator),
    }


def _restart(cluster: Cluster, kube: Kube, folder: Path) -> dict[str, Any]:
    """With those that have just finished, their Jobs and pods, and with others of which only the record is left."""
    connections, done = Connections(kube), kube.get("TrainingJob", NAMESPACE, "job-0")
    assert done

    def add(name: str) -> None:
        connections.request("POST", kube.path("TrainingJob", NAMESPACE), training_job(name))
        path = kube.path("TrainingJob", NAMESPACE, name) + "/status"
        connections.request("PATCH", path, {"status": done["status"]}, "application/merge-patch+json")

    at_once(add, [f"old-{number}" for number in range(FINISHED - JOBS)])
    operator = OperatorProcess(cluster.kubeconfig, folder / "profiles.yaml", folder / "restarted.log")
    try:
        began = time.monotonic()
        _start(operator)
        ready = time.monotonic() - began
        eventually(lambda: _looked_at(operator) >= FINISHED, within=PATIENCE, what="every job is looked at")
        seconds = time.monotonic() - began
        used = usage(operator)
        patches = _requests(operator).get("patch trainingjobs", 0.0)
    finally:
        operator.kill()
    return {
        "finished_jobs": FINISHED,
        "of_which_with_job_and_pods": JOBS,
        "ready": round(ready, 1),
        "every_job_looked_at": round(seconds, 1),
        "operator_cpu_seconds": round(used.cpu_seconds, 1),
        "operator_rss_mib": used.rss_mib,
        "status_patches": patches,
    }


def _start(operator: OperatorProcess) -> None:
    """However busy the machine is."""
    operator.start(ready=False)
    eventually(operator.is_ready, within=PATIENCE, what="the operator is ready")


def _looked_at(operator: OperatorProcess) -> float:
    found = re.search(r'darkroom_reconcile_total\{result="ok"\} (\S+)', operator.fetch("/metrics")[1])
    return float(found[1]) if found else 0.0


def _requests(operator: OperatorProcess) -> dict[str, float]:
    found: dict[str, float] = {}
    for resource, verb, count in _REQUESTS.findall(operator.fetch("/metrics")[1]):
        found[f"{verb} {resource}"] = found.get(f"{verb} {resource}", 0.0) + float(count)
    return found


def _requests_per_job(operator: OperatorProcess) -> dict[str, float]:
    """Without those that there is no job behind."""
    shares = {name: round(count / JOBS, 2) for name, count in _requests(operator).items()}
    return {name: share for name, share in sorted(shares.items()) if share >= 0.01}


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"p{rank}": round(cuts[rank - 1], 3) for rank in (50, 95, 99)}


def training_job(name: str) -> dict[str, Any]:
    """Of 4 pods that never say anything."""
    meta = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}}
    return meta | {"spec": SPEC | {"numNodes": PODS}}
