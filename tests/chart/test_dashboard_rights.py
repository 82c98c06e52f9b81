"""The dashboard of sweeps: who may reach it, and what its pod may do."""

from tests.chart.conftest import Render
from tests.chart.test_values import SHOWN

NAME = "darkroom-dashboard"


def test_its_pod_may_list_sweeps_and_nothing_else(render: Render) -> None:
    objects = [o for o in render(**SHOWN) if o["metadata"]["name"] == NAME and o["kind"] != "ConfigMap"]
    kinds = {o["kind"]: o for o in objects}
    assert set(kinds) == {
        "Deployment",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
    }  # no Service: port-forward
    assert kinds["ClusterRole"]["rules"] == [
        {"apiGroups": ["darkroom.dev"], "resources": ["tuningsweeps"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]
    assert kinds["ClusterRoleBinding"]["subjects"][0]["name"] == NAME
    pod = kinds["Deployment"]["spec"]["template"]
    assert pod["spec"]["serviceAccountName"] == NAME
    assert "ports" not in pod["spec"]["containers"][0]
    assert (
        pod["metadata"]["labels"]["app.kubernetes.io/name"] == NAME
    )  # and not the operator's, whose Service is not for it


def test_with_namespaces_it_has_rights_in_these_alone(render: Render) -> None:
    mine = [o for o in render(watchNamespaces=["vision"], **SHOWN) if o["metadata"]["name"] == NAME]
    roles = [(o["kind"], o["metadata"].get("namespace")) for o in mine if "Role" in o["kind"]]
    assert roles == [("Role", "vision"), ("RoleBinding", "vision")]
