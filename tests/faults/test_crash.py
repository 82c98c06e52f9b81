"""The operator is killed with SIGKILL after every single write of a job's life, and started again: the same end, once."""

import itertools
import json
from typing import Any

import pytest

from darkroom_api.report import Reason, TerminationMessage
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec
from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core.tuning_sweep.suggest import suggest
from tests.controlplane.sweeps import Hopeless, Search
from tests.flowers import PROFILES, Flowers
from tests.kube import eventually
from tests.operator_process import OperatorProcess
from tests.write_counter import WriteCounter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

WRITES_OF_A_LIFE = 12
"""Two nodes, a crash, a second attempt, success: more writes than it takes, so that the last runs end undisturbed."""


@pytest.fixture
def stage(kube, tmp_path):
    """Makes an operator behind a write counter that kills it after write n."""
    made: list[Any] = []

    def make(namespace: str, kill_after: int) -> tuple[WriteCounter, OperatorProcess]:
        holder: list[OperatorProcess] = []
        counter = WriteCounter(kube, lambda n: holder[0].kill() if n == kill_after else None)
        kubeconfig = counter.kubeconfig(tmp_path / f"{namespace}-{len(made)}.kubeconfig")
        log = tmp_path / f"{namespace}.log"
        holder.append(OperatorProcess(kubeconfig, PROFILES, log, DARKROOM_NAMESPACES=namespace))
        made.extend([holder[0].kill, counter.close])
        return counter, holder[0]

    yield make
    for undo in made:
        undo()


def live(job: Flowers, operator: OperatorProcess) -> dict[str, Any]:
    """A job's life with one crash; whenever the operator is found dead it is started again."""

    def until(check, what: str) -> None:
        def alive_and_checked() -> Any:
            operator.keep_alive()
            return check()

        eventually(alive_and_checked, within=60, what=what)

    until(lambda: job.status.get("state") == "Running", "first attempt runs")
    uids = {pod["metadata"]["uid"] for pod in job.pods(1)}
    assert len(uids) == 2
    said = TerminationMessage(reason=Reason.SOFTWARE_ERROR, exit_code=70, error="boom").encode()
    job.end(1, 70, termination_message=said)
    until(lambda: job.status.get("attempt") == 2 and job.status["state"] == "Running", "second attempt runs")
    job.end(2, 0, 0)
    until(lambda: job.status.get("state") == "Complete", "complete")
    return job.status


@pytest.mark.parametrize("kill_after", range(WRITES_OF_A_LIFE + 1))
def test_killed_after_write(kill_after, stage, kube, namespace):
    counter, operator = stage(namespace, kill_after)
    operator.start(ready=False)
    status = live(Flowers(kube, namespace, restart={"maxRestarts": 1, "backoffSeconds": 1}), operator)
    if kill_after != len(counter.writes):  # dead after the last of all writes, and nobody noticed
        assert operator.starts == (2 if 0 < kill_after < len(counter.writes) else 1)
    assert (status["restarts"], status["disruptions"]) == (1, 0)
    assert [a["result"] for a in status["attempts"]] == ["Failed", "Succeeded"]
    creations = [path for path in counter.writes if path.startswith("POST")]
    repeated = [path for path, group in itertools.groupby(sorted(creations)) if len(list(group)) > 3]
    assert repeated == []  # a creation may be tried again, it is never answered with a second object
    jobs = sorted(job["metadata"]["name"] for job in kube.list("Job", namespace))
    assert jobs == ["flowers-1", "flowers-2"]


@pytest.mark.parametrize("kill_after", range(2, 6))
def test_killed_after_a_write_while_a_deadline_ends_an_attempt(kill_after, stage, kube, namespace):
    """The verdict is stored before the Job is deleted: it is never taken for somebody's kubectl delete, which is free."""
    _, operator = stage(namespace, kill_after)
    operator.start(ready=False)
    job = Flowers(kube, namespace, numNodes=1, resourcesPerNode={"nvidia.com/gpu": 9}, startupDeadlineSeconds=2)

    def failed() -> bool:
        operator.keep_alive()
        return job.status.get("state") == "Failed"

    eventually(failed, within=60, what="failed")
    assert [a["reason"] for a in job.status["attempts"]] == ["StartupDeadlineExceeded"]
    assert job.status["disruptions"] == 0
    eventually(lambda: not kube.list("Job", namespace), what="Job gone")


def test_the_write_budget_of_a_two_node_job(stage, kube, namespace):
    """Life long: 1 Job, 1 Service, at most 8 status patches, and no GET in steady state."""
    counter, operator = stage(namespace, kill_after=0)
    operator.start()
    job = Flowers(kube, namespace)
    job.reaches("Running")
    counter.reads.clear()
    job.end(1, 0, 0)
    job.reaches("Complete")
    made = [write for write in counter.writes if write.startswith("POST")]
    assert len(made) == 2, counter.writes
    patches = [write for write in counter.writes if write.endswith("/flowers/status")]
    assert len(patches) == len(counter.writes) - 2
    assert len(patches) <= 8, counter.writes
    gets = [read for read in counter.reads if read.startswith("GET") and "watch=" not in read]
    assert gets == []


def test_two_operators_at_once_make_one_of_everything(stage, kube, namespace):
    counters = []
    for _ in range(2):
        counter, operator = stage(namespace, kill_after=0)
        counters.append(counter)
        operator.start(ready=False)
    status = live(Flowers(kube, namespace, restart={"maxRestarts": 1, "backoffSeconds": 1}), operator)
    assert (status["restarts"], len(status["attempts"])) == (1, 2)
    assert len(kube.list("Job", namespace)) == 2


KILLED_AFTER = frozenset({1, 2, 4, 8, 13, 21})
"""Writes of a sweep's life: its trials, their Jobs, every status."""


def test_a_sweep_survives_an_operator_that_is_killed_again_and_again(kube, namespace, tmp_path):
    """No trial is made twice, none is lost, and each tries what it would have tried without a single kill."""
    holder: list[OperatorProcess] = []
    counter = WriteCounter(kube, lambda n: holder[0].kill() if n in KILLED_AFTER else None)
    kubeconfig = counter.kubeconfig(tmp_path / "kubeconfig")
    operator = OperatorProcess(kubeconfig, PROFILES, tmp_path / "operator.log", DARKROOM_NAMESPACES=namespace)
    holder.append(operator)
    operator.start(ready=False)

    try:
        sweep = Search(kube, namespace, parallelism=1, algorithm={"name": "TPE", "seed": 7, "startupTrials": 2})
        sweep.play(lambda: sweep.status.get("finished"), within=240, tick=operator.keep_alive)
    finally:
        operator.kill()
        counter.close()
    assert operator.starts > 5
    assert sorted(sweep.trials()) == [f"search-{number:05d}" for number in range(4)]
    assert [row["result"] for row in sweep.status["ledger"]] == ["Succeeded"] * 4
    spec = TuningSweepSpec.model_validate_json(json.dumps(sweep.body["spec"]))
    rows = [TrialRecord.model_validate(row) for row in sweep.status["ledger"]]
    undisturbed = [suggest(spec, "7", number, rows[:number], []) for number in range(4)]
    assert [row.parameters for row in rows] == [suggestion.parameters for suggestion in undisturbed if suggestion]


def test_an_operator_that_dies_between_a_page_and_the_status_loses_no_row(kube, namespace, tmp_path):
    killed: list[int] = []

    def kill_after_a_page(number: int) -> None:
        if len(killed) < 2 and counter.writes[number - 1].endswith("/configmaps"):
            killed.append(number)
            operator.kill()

    counter = WriteCounter(kube, kill_after_a_page)
    kubeconfig = counter.kubeconfig(tmp_path / "kubeconfig")
    operator = OperatorProcess(kubeconfig, PROFILES, tmp_path / "operator.log", DARKROOM_NAMESPACES=namespace)
    operator.start(ready=False)

    def ended() -> Any:
        operator.keep_alive()
        return sweep.status.get("finished")

    try:
        sweep = Hopeless(kube, namespace, trials=60)
        eventually(ended, within=240, what="the end")
    finally:
        operator.kill()
        counter.close()
    assert len(killed) == 2
    assert sweep.numbers() == list(range(60))
    assert len(sweep.pages()) == len(sweep.status["ledgerPages"])
