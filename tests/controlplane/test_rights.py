"""The operator's rights, verb by verb: what the chart grants is what the operator asked for in the tests of this folder."""

import contextlib
import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster import Cluster
from tests.controlplane.conftest import ACCOUNT
from tests.controlplane.sweeps import Search
from tests.flowers import Flowers
from tests.kube import Kube, Refused, eventually

pytestmark = pytest.mark.cluster
Right = tuple[str, str, str]
"""API group, resource, verb."""
FINALIZERS = ("darkroom.dev", "trainingjobs/finalizers", "update")
SWEEP_FINALIZERS = ("darkroom.dev", "tuningsweeps/finalizers", "update")


def granted(roles: Iterable[dict[str, Any]]) -> set[Right]:
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(cluster: Cluster) -> list[tuple[Right, str]]:
    """Every request of the operator about objects, with what the authorizer said to it."""
    return list(answers(cluster, 0))


def answers(cluster: Cluster, start: int) -> Iterator[tuple[Right, str]]:
    """The same from a place in the audit log on, in bytes."""
    with cluster.audit_log.open() as log:
        log.seek(start)
        for line in log:
            event = json.loads(line) if ACCOUNT in line else {}
            if event.get("user", {}).get("username") == ACCOUNT and "objectRef" in event:
                yield right(event), event["annotations"]["authorization.k8s.io/decision"]


def right(event: dict[str, Any]) -> Right:
    thing = event["objectRef"]
    resource = "/".join(part for part in (thing["resource"], thing.get("subresource")) if part)
    return thing.get("apiGroup", ""), resource, event["verb"]


@pytest.fixture
def the_whole_folder_ran(request: pytest.FixtureRequest) -> None:
    """Without the others, this file could say nothing about what is never used."""
    files = {item.path for item in request.session.items}
    options = request.config.option
    if options.keyword or options.markexpr or not files >= set(Path(__file__).parent.glob("test_*.py")):
        pytest.skip("only a part of the folder runs")


def test_a_foreign_job_of_an_attempts_name_is_left_alone(flowers, kube, namespace):
    """The operator looks whose it is: the only time that it reads a single Job."""
    container = {"name": "theirs", "image": "x"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "flowers-1"}}
    kube.create(
        job | {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}}, namespace
    )
    ours = flowers()
    ours.reaches("Stalled")
    assert ours.condition("Stalled")[1] == "NameTaken"
    assert "ownerReferences" not in kube.get("Job", namespace, "flowers-1")["metadata"]


def test_a_service_that_somebody_edits_is_put_right(flowers, kube, namespace):
    flowers().reaches("Running")
    kube.merge("Service", namespace, "darkroom-flowers", {"spec": {"publishNotReadyAddresses": False}})

    def put_right() -> bool:
        return kube.get("Service", namespace, "darkroom-flowers")["spec"].get("publishNotReadyAddresses", False)

    eventually(put_right, what="publishNotReadyAddresses again")


@contextlib.contextmanager
def edited_all_the_time(kube: Kube, kind: str, namespace: str, name: str) -> Iterator[None]:
    """Somebody changes a label of it, over and over, so that whoever writes has seldom seen its newest version."""
    over = threading.Event()

    def edit() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            kube.merge(kind, namespace, name, {"metadata": {"labels": {"edit": str(number)}}})

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        yield
    finally:
        over.set()
        editor.join()


def read_anew(cluster: Cluster, resource: str, start: int) -> bool:
    """Whether the operator has asked for a single object, as it does after a conflict, since the audit log was so long."""
    return any(question == ("darkroom.dev", resource, "get") for question, _ in answers(cluster, start))


def test_a_status_that_was_computed_from_an_old_object_is_not_stored(flowers, cluster):
    """The operator reads the job anew after a conflict, and gets through in the end."""
    job: Flowers = flowers()
    start = cluster.audit_log.stat().st_size

    def conflict() -> bool:
        if job.status.get("state") in ("Running", "Suspended"):
            job.edit(suspend=job.status["state"] == "Running")
        return read_anew(cluster, "trainingjobs", start)

    with edited_all_the_time(job.kube, "TrainingJob", job.namespace, job.name):
        eventually(conflict, within=60, what="a conflict")
    job.edit(suspend=False)
    job.reaches("Running")


def test_a_sweep_is_read_anew_after_a_conflict(cluster, kube, operator, namespace):
    sweep = Search(kube, namespace, suspend=True)
    start, numbers = cluster.audit_log.stat().st_size, itertools.count()

    def conflict() -> bool:
        sweep.edit(suspend=next(numbers) % 4 < 2)
        return read_anew(cluster, "tuningsweeps", start)

    with edited_all_the_time(kube, "TuningSweep", namespace, "search"):
        eventually(conflict, within=60, what="a conflict")


def test_blocking_the_owners_deletion_needs_the_right_to_its_finalizers(cluster, kube, rights, flowers, namespace):
    """OpenShift asks for it inside the admission of every child; the audit log cannot show that, so it is taken away here."""
    owner = flowers(suspend=True)
    owner.reaches("Suspended")
    reference = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "name": "flowers"}
    reference |= {"uid": owner.body["metadata"]["uid"], "blockOwnerDeletion": True}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "ownerReferences": [reference]}}
    service |= {"spec": {"clusterIP": "None"}}
    path = kube.path("Service", namespace) + "?dryRun=All"
    kube.request("POST", path, service, user=ACCOUNT)

    (role,) = [role for role in rights if FINALIZERS in granted([role])]
    lesser = [rule for rule in role["rules"] if "trainingjobs/finalizers" not in rule["resources"]]
    name = {"metadata": {"name": "without-finalizers"}}
    head = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    subject = {"kind": "User", "name": "without-finalizers", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"kind": "ClusterRole", "name": "without-finalizers", "apiGroup": "rbac.authorization.k8s.io"}
    kube.create({**head, **name, "kind": "ClusterRole", "rules": lesser})
    kube.create({**head, **name, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]})

    def refused() -> str:
        try:
            kube.request("POST", path, service, user="without-finalizers")
        except Refused as refusal:
            return str(refusal)
        return ""

    eventually(lambda: "can't set finalizers on" in refused(), what="refused for the finalizers alone")


def test_nothing_was_forbidden(cluster):
    assert {question for question, decision in asked(cluster) if decision != "allow"} == set()


def test_every_right_was_used(the_whole_folder_ran, cluster, rights):
    """FINALIZERS is the one that admission asks for, as the test above shows."""
    never = granted(rights) - {question for question, _ in asked(cluster)} - {FINALIZERS, SWEEP_FINALIZERS}
    assert never == set(), "rights that the chart grants and the operator never asks for"
