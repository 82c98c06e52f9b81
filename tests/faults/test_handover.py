"""A rolling update of the operator while jobs run: the new one starts beside the old one, and no job notices."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster import Cluster
from tests.flowers import PROFILES, Flowers
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess

pytestmark = pytest.mark.cluster


@pytest.fixture
def operators(cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Makes operators that serve the test's namespace alone."""
    made: list[OperatorProcess] = []

    def start(**environment: str) -> OperatorProcess:
        log = tmp_path / f"operator-{len(made)}.log"
        made.append(OperatorProcess(cluster.kubeconfig, PROFILES, log, DARKROOM_NAMESPACES=namespace, **environment))
        return made[-1].start()

    yield start
    for process in made:
        process.kill()


def pictures(kube: Kube, namespace: str) -> list[Any]:
    """What a restart or a rewrite would change: identities of Jobs and pods, and the generation of the Jobs."""
    jobs = [(job["metadata"]["uid"], job["metadata"]["generation"]) for job in kube.list("Job", namespace)]
    pods = [pod["metadata"]["uid"] for pod in kube.list("Pod", namespace)]
    return [*sorted(jobs), *sorted(pods)]


def test_a_rolling_update_restarts_nothing(operators, kube, namespace):
    """First from a version without an election, which goes on writing until it leaves, then between two that have one."""
    old = operators()
    job = Flowers(kube, namespace)
    job.reaches("Running")
    before = pictures(kube, namespace)
    lease = {"DARKROOM_LEASE": f"{namespace}/darkroom"}
    for _ in range(2):
        new = operators(**lease)
        assert old.stop() == 0
        old = new
        eventually(lambda o=old: 'status{name="trainingjobs"} 1.0' in o.fetch("/metrics")[1], what="the new one leads")
    assert pictures(kube, namespace) == before
    status = job.status
    assert (status["attempt"], status.get("restarts", 0), status.get("disruptions", 0)) == (1, 0, 0)
    job.end(1, 0, 0)
    job.reaches("Complete")
