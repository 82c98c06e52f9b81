"""The operator against a real control plane with fake nodes.

latency: from `create` of a two-node TrainingJob to both pods created, one at a time on an idle cluster.
throughput: 100 TrainingJobs of 4 pods until every pod is ready, against the same 100 plain Indexed Jobs in the same run:
what the operator adds on top of Kubernetes' own Job controller.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.stage import SPEC, stage
from localcluster import Cluster
from tests.kube import Kube, Refused, eventually
from tests.operator_process import OperatorProcess

JOBS, PODS = 100, 4


def run() -> dict[str, Any]:
    """Findings by name; seconds unless the name says otherwise."""
    with stage("kwok:20") as (cluster, kube, folder):
        return _measure(cluster, kube, folder)


def _measure(cluster: Cluster, kube: Kube, folder: Path) -> dict[str, Any]:
    operator = OperatorProcess(cluster.kubeconfig, folder / "profiles.yaml", folder / "operator.log")
    with operator:
        time.sleep(2)
        latencies = [_latency(kube, number) for number in range(20)]
        _namespace(kube, "darkroom")
        ours = _throughput(kube, "darkroom", lambda n: _training_job(f"job-{n}", PODS))
        usage = _usage(operator)
    _namespace(kube, "plain")
    plain = _throughput(kube, "plain", lambda n: _plain_job(f"job-{n}"))
    return {
        "apply_to_pods_median": round(statistics.median(latencies), 3),
        "apply_to_pods_worst": round(max(latencies), 3),
        f"ready_{JOBS}_jobs_of_{PODS}": round(ours, 1),
        f"ready_{JOBS}_plain_jobs_of_{PODS}": round(plain, 1),
        "ratio_to_plain_jobs": round(ours / plain, 2),
        **usage,
    }


def _latency(kube: Kube, number: int) -> float:
    name = f"latency-{number}"
    _namespace(kube, name)
    began = time.monotonic()
    kube.create(_training_job("job", 2), name)
    eventually(lambda: len(kube.list("Pod", name)) == 2, within=30, what="both pods")
    return time.monotonic() - began


def _throughput(kube: Kube, namespace: str, make: Callable[[int], dict[str, Any]]) -> float:
    began = time.monotonic()
    for number in range(JOBS):
        kube.create(make(number), namespace)
    eventually(lambda: _ready(kube, namespace) == JOBS * PODS, within=300, what="every pod ready")
    return time.monotonic() - began


def _ready(kube: Kube, namespace: str) -> int:
    return sum(job.get("status", {}).get("ready", 0) for job in kube.list("Job", namespace))


def _namespace(kube: Kube, name: str) -> None:
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    eventually(lambda: kube.get("ServiceAccount", name, "default"), what="default service account")


def _training_job(name: str, nodes: int) -> dict[str, Any]:
    meta = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}}
    return meta | {"spec": SPEC | {"numNodes": nodes}}


def _plain_job(name: str) -> dict[str, Any]:
    container = {"name": "trainer", "image": "localhost/mine:1", "resources": {"requests": {"cpu": "10m"}}}
    spec = {
        "completionMode": "Indexed",
        "completions": PODS,
        "parallelism": PODS,
        "backoffLimit": 0,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def _usage(operator: OperatorProcess) -> dict[str, float]:
    """Memory and CPU of the operator's process so far."""
    if operator.process is None:
        raise Refused(0, "the operator does not run")
    proc = Path(f"/proc/{operator.process.pid}")
    pages = int((proc / "statm").read_text().split()[1])
    ticks = sum(int(field) for field in (proc / "stat").read_text().rsplit(")", 1)[1].split()[11:13])
    return {"operator_rss_mib": round(pages * 4096 / 2**20, 1), "operator_cpu_seconds": round(ticks / 100, 2)}
