"""spec.managedBy: a job of another controller is none of ours."""

import pytest

from darkroom_api.crd import UNSEEN
from tests.kube import Refused, eventually

pytestmark = pytest.mark.cluster


def test_a_job_of_another_controller_is_left_alone(flowers, kube, namespace, operator):
    theirs = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "theirs"}}
    spec = {"container": {"image": "x"}, "managedBy": "kueue.x-k8s.io/multikueue"}
    kube.create(theirs | {"spec": spec}, namespace)
    ours = flowers(managedBy="darkroom.dev/operator")
    ours.reaches("Running")  # made after theirs, so the operator has seen both
    eventually(lambda: kube.list("Event", namespace), what="events about ours")
    assert kube.get("TrainingJob", namespace, "theirs")["status"] == UNSEEN
    assert {job["metadata"]["name"] for job in kube.list("Job", namespace)} == {"flowers-1"}
    told = {event["regarding"]["name"] for event in kube.list("Event", namespace)}
    assert not any(name.startswith("theirs") for name in told)
    states = [line for line in operator.fetch("/metrics")[1].splitlines() if f'namespace="{namespace}"' in line]
    counted = [line for line in states if line.startswith("darkroom_trainingjobs{")]
    assert [line.rsplit(" ", 1)[1] for line in counted] == ["1.0"]


def test_it_does_not_change_hands(flowers):
    job = flowers(managedBy="kueue.x-k8s.io/multikueue")
    with pytest.raises(Refused, match="managedBy is immutable"):
        job.edit(managedBy="darkroom.dev/operator")
