"""The control plane falls over under running jobs: they go on, and nothing is lost, doubled or started again."""

import time

import pytest

from tests.flowers import PROFILES, Flowers
from tests.kube import eventually
from tests.operator_process import OperatorProcess

pytestmark = pytest.mark.cluster


@pytest.fixture
def operator(cluster, namespace, tmp_path):
    """One that has to hold its lease, and is started again whenever it has lost it."""
    limits = {"DARKROOM_NAMESPACES": namespace, "DARKROOM_LEASE": f"{namespace}/darkroom"}
    with OperatorProcess(cluster.kubeconfig, PROFILES, tmp_path / "operator.log", **limits) as process:
        yield process


@pytest.mark.parametrize(
    "components",
    [
        pytest.param(["kube-apiserver"], id="API server"),
        pytest.param(["etcd"], id="etcd"),
        pytest.param(["kube-controller-manager", "kube-scheduler"], id="controllers"),
    ],
)
def test_a_component_is_killed_and_comes_back(cluster, kube, operator, namespace, components):
    """One job runs meanwhile, one ends, one crashes, one is new. An operator that loses its lease is started again."""
    running, ending, crashing = (
        Flowers(kube, namespace, name, numNodes=1) for name in ("running", "ending", "crashing")
    )
    for job in (running, ending, crashing):
        job.reaches("Running")
    uid = running.pods(1)[0]["metadata"]["uid"]
    ending.end(1, 0)
    crashing.end(1, 70)
    new = Flowers(kube, namespace, "new", numNodes=1)
    for component in components:
        cluster.kill(component)
    time.sleep(1.0)
    for component in components:
        cluster.revive(component)

    def until(job: Flowers, state: str, attempt: int = 1) -> None:
        def there() -> bool:
            operator.keep_alive()
            return (job.status.get("state"), job.status.get("attempt")) == (state, attempt)

        eventually(there, within=60, what=f"{job.name}: {state}: {job.status}")

    until(ending, "Complete")
    until(crashing, "Running", attempt=2)
    until(new, "Running")
    running.end(1, 0)
    until(running, "Complete")
    assert [pod["metadata"]["uid"] for pod in running.pods(1)] == [uid]
    spent = [(job.status["restarts"], job.status["disruptions"]) for job in (running, ending, new, crashing)]
    assert spent == [(0, 0), (0, 0), (0, 0), (1, 0)]
    made = sorted(job["metadata"]["name"] for job in kube.list("Job", namespace))
    assert made == ["crashing-1", "crashing-2", "ending-1", "new-1", "running-1"]
