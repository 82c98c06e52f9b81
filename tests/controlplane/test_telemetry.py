"""A real Prometheus scrapes a real operator: every query of the dashboard has an answer, and the answers are right."""

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

from darkroom_api.report import Reason, TerminationMessage
from localcluster import Cluster
from localcluster.binaries import KUEUE, source_of
from tests.chart.test_alerts import RULES
from tests.controlplane.sweeps import Search
from tests.dashboard import Query, filled, queries, variables
from tests.flowers import Flowers
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess
from tests.prometheus import Prometheus, promtool
from tests.report_server import Reporter

pytestmark = pytest.mark.cluster
SPENT = {"startup": 0.2, "dataWait": 0.3, "compute": 1.0, "evaluation": 0.1, "checkpoint": 0.1}


@pytest.fixture(scope="module")
def prometheus(operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus"), operator.port) as server:
        yield server


def serve_workloads(cluster: Cluster) -> None:
    """Kueue's API without Kueue: a Job with a queue's name is let start at once."""
    (file,) = (source_of(KUEUE, "sigs.k8s.io/kueue") / "config/components/crd/bases").glob("*_workloads.yaml")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(file))


def report(job: Flowers, attempt: int, **fields: Any) -> None:
    """A live report of the first pod that gets through."""
    pod = Reporter(job.kube, eventually(lambda: job.pods(attempt), what="pods")[0])
    eventually(lambda: pod.try_to_post(fields)[0] == 200, within=60, what="an answer")


def train(job: Flowers) -> None:
    """An attempt that fails, and one that goes on."""
    job.reaches("Running", within=60)
    said = TerminationMessage(reason=Reason.SOFTWARE_ERROR, exit_code=70, error="ValueError: boom", time=SPENT)
    job.end(1, 70, termination_message=said.encode())
    eventually(lambda: job.status.get("attempt") == 2, within=60, what="second attempt")
    job.reaches("Running", within=60)
    best = {"metric": "val/top1", "value": "0.93", "epoch": 3}
    standing = {"epoch": 4, "epochs": 10, "step": 40, "steps": 100, "best": best, "imagesPerSecond": "812.5"}
    report(job, 2, sequence=1, etaSeconds=70, metrics=[{"name": "val/top1", "value": "0.91"}], **standing)


def search(kube: Kube, namespace: str) -> Search:
    """Two trials, of which one is pruned and one is not."""
    pruning = {"asha": {"minEpochs": 1, "reductionFactor": 2}}
    sweep = Search(kube, namespace, pruning=pruning, stopping={"maxTrials": 2}, template={"profile": "billed"})
    eventually(lambda: len(sweep.running()) == 2, within=60, what=f"two trials: {sweep.status}")
    sweep.end("search-00001", reason=Reason.PRUNED, val_top1="0.1")
    sweep.end("search-00000", val_top1="0.9")
    sweep.reaches("Complete")
    return sweep


def answer(prometheus: Prometheus, query: Query, since: float, **chosen: str) -> list[dict[str, Any]]:
    """Series with a number in them, as the panel asks for them."""
    span = f"{math.ceil(time.time() - since)}s"
    expression = filled(query.expression, range=span, rate_interval="10s", **chosen)
    if query.instant:
        return [one for one in prometheus.query(expression) if not math.isnan(float(one["value"][1]))]
    found = prometheus.query_range(expression, time.time() - 20, time.time())
    return [one for one in found if any(not math.isnan(float(value)) for _, value in one["values"])]


def test_every_query_of_the_dashboard_has_an_answer(prometheus, operator, cluster, kube, namespace):
    since = time.time()
    serve_workloads(cluster)
    job = Flowers(kube, namespace, profile="billed", scheduling={"queue": "vision", "gang": "Kueue"})
    train(job)
    search(kube, namespace)

    chosen = {"namespace": namespace, "profile": "billed", "job": "flowers", "sweep": "search"}
    for variable in variables():
        wanted, selector, label = chosen[variable.name], filled(variable.selector, **chosen), variable.label
        eventually(lambda: wanted in prometheus.label_values(label, selector), what=f"{variable}")  # noqa: B023

    def unanswered() -> list[Query]:
        return [query for query in queries() if not answer(prometheus, query, since, **chosen)]

    eventually(lambda: not unanswered(), what=f"{[query.expression for query in unanswered()]}")
    for query in queries():
        for one in answer(prometheus, query, since, **chosen):
            assert query.labels <= set(one["metric"]), f"{query.panel}: {query.legend}"
    the_answers_are_those_of_the_status(prometheus, job, namespace)

    code, text = operator.fetch("/metrics")
    done = promtool("check", "metrics", text=text)
    assert (code, done.returncode, done.stderr) == (200, 0, "")
    job.kube.delete("TrainingJob", namespace, "flowers")
    of_the_job = f'{{namespace="{namespace}",name="flowers"}}'
    eventually(lambda: not prometheus.query(of_the_job), what="its series go with it")
    assert prometheus.query(f'darkroom_trainingjob_state{{namespace="{namespace}"}}'), "those of the trials stay"


def the_answers_are_those_of_the_status(prometheus: Prometheus, job: Flowers, namespace: str) -> None:
    status, place = job.status, f'namespace="{namespace}",profile="billed"'

    def value(expression: str) -> float:
        (one,) = prometheus.query(expression)
        return float(one["value"][1])

    def own(name: str, more: str = "") -> float:
        return value(f'darkroom_trainingjob_{name}{{namespace="{namespace}",name="flowers"{more}}}')

    assert own("progress_ratio") == pytest.approx(status["progress"]["percent"] / 100) == 0.4
    assert own("metric", ',metric="val/top1"') == 0.91
    assert own("cost", ',currency="EUR"') == float(status["cost"].split()[0]) > 0
    assert own("time_seconds", ',bucket="compute"') == float(status["time"]["compute"])
    assert own("restarts") == 1
    assert value(f"darkroom_queue_wait_seconds_count{{{place}}}") == 2
    assert value(f'darkroom_trainingjobs{{{place},state="Running"}}') == 1
    assert value(f"darkroom_accelerators_in_use{{{place}}}") == 2
    trials = value(f'sum(darkroom_trial_accelerator_seconds_total{{namespace="{namespace}"}})')
    whole = value(f"darkroom_accelerator_seconds_total{{{place}}}")
    assert whole == pytest.approx(float(status["gpuHours"]) * 3600 + trials)
    assert value(f'increase(darkroom_attempts_total{{{place},result="Failed"}}[5m]) > 0') > 0, "the first one counts"


def test_the_server_takes_every_alert(prometheus):
    for rule in RULES:
        prometheus.query(rule["expr"])
