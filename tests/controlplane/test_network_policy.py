"""The NetworkPolicy of a job whose profile asks for one. That it is obeyed is the network plugin's part: fake nodes have none."""

import pytest

from tests.kube import eventually

pytestmark = pytest.mark.cluster


def test_it_comes_before_the_pods_and_goes_with_the_job(flowers, kube, namespace):
    job = flowers(profile="fenced")
    job.reaches("Running")
    policy = kube.get("NetworkPolicy", namespace, "darkroom-flowers")
    (attempt,) = kube.list("Job", namespace)
    assert int(policy["metadata"]["resourceVersion"]) < int(attempt["metadata"]["resourceVersion"])
    assert policy["spec"]["egress"][-1]["to"] == [{"ipBlock": {"cidr": "10.20.0.0/16"}}]
    for pod in job.pods(1):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    kube.delete("TrainingJob", namespace, "flowers")
    eventually(lambda: not kube.list("NetworkPolicy", namespace), within=60, what="the policy is gone")


def test_it_is_put_right_and_made_again(flowers, kube, namespace):
    job = flowers(profile="fenced")
    job.reaches("Running")
    patch = {"spec": {"ingress": [{}]}}
    before = kube.get("NetworkPolicy", namespace, "darkroom-flowers")["spec"]
    kube.merge("NetworkPolicy", namespace, "darkroom-flowers", patch)

    def as_before() -> bool:
        return (kube.get("NetworkPolicy", namespace, "darkroom-flowers") or {}).get("spec") == before

    eventually(as_before, what="put right")
    kube.delete("NetworkPolicy", namespace, "darkroom-flowers")
    eventually(as_before, what="made again")
    assert job.status["attempt"] == 1


def test_the_profile_changes_it_and_takes_it_away(flowers, kube, namespace, profiles):
    job = flowers(profile="fenced")
    job.reaches("Running")
    before = profiles.read_text()
    try:
        profiles.write_text(before.replace("10.20.0.0/16", "10.30.0.0/16"))

        def cidr() -> str:
            policy = kube.get("NetworkPolicy", namespace, "darkroom-flowers")
            return policy["spec"]["egress"][-1]["to"][0]["ipBlock"]["cidr"]

        eventually(lambda: cidr() == "10.30.0.0/16", what="the other address")
        profiles.write_text("\n".join(line for line in before.splitlines() if "networkPolicy" not in line))
        eventually(lambda: not kube.list("NetworkPolicy", namespace), what="no policy")
    finally:
        profiles.write_text(before)
    # also so that the next test finds the operator with the profiles that it expects
    eventually(lambda: kube.list("NetworkPolicy", namespace) and cidr() == "10.20.0.0/16", what="the first address")
    assert job.status["attempt"] == 1


def test_one_of_somebody_else_is_left_alone(flowers, kube, namespace):
    theirs = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "darkroom-flowers"}}
    kube.create(theirs | {"spec": {"podSelector": {}}}, namespace)
    job = flowers(profile="fenced")
    job.reaches("Stalled")
    assert job.condition("Stalled")[1] == "NameTaken"
    assert kube.list("Job", namespace) == []
