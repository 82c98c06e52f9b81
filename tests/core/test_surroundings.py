"""Service and NetworkPolicy as a job's life goes on: made before the pods, kept right, and gone when the profile has none."""

import pytest

from darkroom_operator.core.profile import NetworkPolicy
from tests.core.world import PROFILES, World

FENCED = {"default": PROFILES["default"].model_copy(update={"network_policy": NetworkPolicy()})}
OPENED = {
    "default": PROFILES["default"].model_copy(
        update={"network_policy": NetworkPolicy.model_validate({"egress": [{"cidr": "10.0.0.0/8"}]})}
    )
}


def fenced(**spec) -> World:
    world = World(FENCED, **spec)
    world.settle()
    world.run("flowers-1")
    world.settle()
    return world


@pytest.mark.parametrize(
    ("nodes", "made"),
    [
        pytest.param(1, ["NetworkPolicy/darkroom-flowers", "Job/flowers-1"], id="one node is fenced too"),
        pytest.param(
            2,
            ["Service/darkroom-flowers", "NetworkPolicy/darkroom-flowers", "Job/flowers-1"],
            id="both before the pods",
        ),
    ],
)
def test_what_is_made(nodes, made):
    assert fenced(numNodes=nodes).created == made


@pytest.mark.parametrize(
    ("profiles", "made", "left"),
    [
        pytest.param(FENCED, 1, 1, id="nothing to do"),
        pytest.param(OPENED, 2, 1, id="another egress holds at once"),
        pytest.param(PROFILES, 1, 0, id="a profile without a policy takes it away"),
        pytest.param({}, 1, 1, id="a profile that is gone leaves a running job as it is"),
    ],
)
def test_a_change_of_the_profile_while_it_runs(profiles, made, left):
    world = fenced()
    world.profiles = profiles
    world.settle()
    assert world.created.count("NetworkPolicy/darkroom-flowers") == made
    assert len(world.network_policies) == left
    assert world.status["state"] == "Running"
    if profiles is OPENED:
        (policy,) = world.network_policies.values()
        assert policy["spec"]["egress"][-1] == {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}


def test_a_deleted_policy_is_made_again():
    world = fenced()
    world.network_policies.clear()
    world.settle()
    assert world.created.count("NetworkPolicy/darkroom-flowers") == 2


def test_a_policy_that_somebody_edits_is_put_right():
    world = fenced()
    world.network_policies["darkroom-flowers"]["spec"]["ingress"] = [{}]
    world.settle()
    assert world.network_policies["darkroom-flowers"]["spec"]["ingress"] != [{}]
