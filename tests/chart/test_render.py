"""What the chart renders, and what it refuses."""

import dataclasses
import json
from typing import Any

import pytest
import yaml

from darkroom_api import names
from darkroom_operator.core.profile import Profile, parse_profiles
from darkroom_operator.shell.settings import Settings
from tests.chart.conftest import CHART, NAMESPACE, Helm, Object, Render, only
from tests.chart.values import EVERYTHING, PROFILE

ALLOWED = {
    ("darkroom.dev", "trainingjobs"): {"get", "list", "watch", "create", "patch", "delete"},
    ("darkroom.dev", "trainingjobs/status"): {"patch"},
    ("darkroom.dev", "trainingjobs/finalizers"): {"update"},
    ("darkroom.dev", "tuningsweeps"): {"get", "list", "watch"},
    ("darkroom.dev", "tuningsweeps/status"): {"patch"},
    ("darkroom.dev", "tuningsweeps/finalizers"): {"update"},
    ("batch", "jobs"): {"get", "list", "watch", "create", "delete"},
    ("", "configmaps"): {"get", "create"},
    ("", "services"): {"get", "list", "watch", "create", "patch"},
    ("networking.k8s.io", "networkpolicies"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "pods"): {"list", "watch"},
    ("events.k8s.io", "events"): {"create", "patch"},
    ("kueue.x-k8s.io", "workloads"): {"list"},
    **{(f"scheduling.{group}", "podgroups"): {"get", "create"} for group in ("k8s.io", "volcano.sh", "x-k8s.io")},
}
MODES: list[Any] = [
    pytest.param({}, id="whole cluster"),
    pytest.param({"watchNamespaces": ["vision", "speech"]}, id="two namespaces"),
    pytest.param(EVERYTHING, id="every option"),
    pytest.param({"metrics": {"podMonitor": {"enabled": True, "labels": {"a": "b"}}}}, id="the other monitor"),
]


@pytest.mark.parametrize("values", MODES)
def test_lint(each_offline_helm: Helm, values: Object, tmp_path: Any) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    each_offline_helm.run("lint", CHART, "--strict", "--values", file)


@pytest.mark.parametrize("values", MODES)
def test_both_helms_render_the_same(each_offline_helm: Helm, render: Render, values: Object, tmp_path: Any) -> None:
    file = tmp_path / "each.yaml"
    file.write_text(yaml.safe_dump(values))
    text = each_offline_helm.run("template", "darkroom", CHART, "--namespace", NAMESPACE, "--values", file)

    def by_name(objects: list[Object]) -> Object:
        return {f"{o['kind']} {o['metadata'].get('namespace')}/{o['metadata']['name']}": o for o in objects}

    assert by_name([o for o in yaml.safe_load_all(text) if o]) == by_name(render(**values))


@pytest.mark.parametrize("values", MODES)
def test_the_operator_gets_exactly_these_rights(render: Render, values: Object) -> None:
    objects = render(**values)
    name = values.get("fullnameOverride", "darkroom")
    lease = only(objects, "Role", f"{name}-lease")
    assert lease["metadata"]["namespace"] == NAMESPACE
    assert [(rule["resources"], rule.get("resourceNames"), rule["verbs"]) for rule in lease["rules"]] == [
        (["leases"], None, ["create"]),
        (["leases"], [name], ["get", "update"]),
    ]
    roles = [o for o in objects if o["kind"] in ("Role", "ClusterRole") and o["metadata"]["name"] == name]
    assert roles
    for role in roles:
        assert rights(role) == ALLOWED


def rights(role: Object) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.mark.parametrize("values", MODES)
def test_no_role_has_a_wildcard_or_touches_secrets_or_creates_pods(render: Render, values: Object) -> None:
    objects = [o for o in render(**values) if not o["metadata"]["name"].endswith("-reports")]
    for role in [o for o in objects if o["kind"] in ("Role", "ClusterRole")]:
        for (group, resource), verbs in rights(role).items():
            assert "*" not in (group, resource, *verbs)
            assert resource not in ("secrets", "serviceaccounts", "customresourcedefinitions")
            assert not (resource.startswith("pods") and verbs & {"create", "update", "patch", "delete"})


def test_a_list_of_namespaces_means_roles_there_and_none_for_the_cluster(render: Render) -> None:
    objects = render(watchNamespaces=["vision", "speech"])
    places = {NAMESPACE, "vision", "speech"}  # NAMESPACE: the lease, and the Secret of the report channel
    assert {o["metadata"]["namespace"] for o in objects if o["kind"] == "Role"} == places
    assert {o["metadata"]["namespace"] for o in objects if o["kind"] == "RoleBinding"} == places
    assert not [o for o in objects if o["kind"] == "ClusterRoleBinding"]
    assert environment(objects)["DARKROOM_NAMESPACES"] == "vision,speech"


def test_a_namespaced_install_needs_nothing_of_the_cluster(render: Render) -> None:
    """What belongs to the cluster can be left to an administrator: the CRD, people's aggregated roles, the policies."""
    objects = render(
        watchNamespaces=["vision"],
        crds={"install": False},
        rbac={"aggregateToUserRoles": False},
        admissionPolicy={"enabled": False},
    )
    assert [o["kind"] for o in objects if "namespace" not in o["metadata"]] == []


@pytest.mark.parametrize("values", MODES)
def test_every_policy_is_bound_where_the_operator_watches(render: Render, values: Object) -> None:
    objects = render(**values)
    policies = {o["metadata"]["name"] for o in objects if o["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [o for o in objects if o["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert policies and {o["spec"]["policyName"] for o in bindings} == policies
    for binding in bindings:
        (where,) = binding["spec"].get("matchResources", {}).get("namespaceSelector", {}).get("matchExpressions", [{}])
        assert where.get("values", []) == values.get("watchNamespaces", [])


def test_bindings_name_the_service_account(render: Render) -> None:
    objects = render()
    (subject,) = only(objects, "ClusterRoleBinding")["subjects"]
    account = only(objects, "ServiceAccount")["metadata"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"]) == ("darkroom", NAMESPACE)


@pytest.mark.parametrize("values", MODES)
def test_one_secret_is_the_operators_own_by_name_and_without_data(render: Render, values: Object) -> None:
    objects = render(**values)
    name = f"{values.get('fullnameOverride', 'darkroom')}-reports"
    secret, role = only(objects, "Secret"), only(objects, "Role", name)
    assert (secret["metadata"]["name"], secret["type"]) == (name, "Opaque")
    assert "data" not in secret and "stringData" not in secret  # or Helm and the operator fight over it
    own = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get", "patch"]}
    assert role["rules"] == [own]
    assert role["metadata"]["namespace"] == secret["metadata"]["namespace"] == NAMESPACE
    (subject,) = only(objects, "RoleBinding", name)["subjects"]
    assert subject["name"] == only(objects, "ServiceAccount")["metadata"]["name"]
    settings = Settings.from_environment(environment(objects))
    assert settings.reports_secret == f"{NAMESPACE}/{name}"
    service = only(objects, "Service")
    (port,) = [p for p in service["spec"]["ports"] if p["name"] == "reports"]
    assert settings.reports_address == f"{service['metadata']['name']}.{NAMESPACE}.svc:{port['port']}"
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"name": "reports", "containerPort": settings.reports_port} in container["ports"]


def test_without_reports_there_is_nothing_of_them(render: Render) -> None:
    objects = render(reports={"enabled": False}, networkPolicy={"enabled": True})
    assert not [o for o in objects if o["kind"] == "Secret"]
    assert not [o for o in objects if o["kind"] == "Role" and rights(o).keys() & {("", "secrets")}]
    assert not [name for name in environment(objects) if "REPORTS" in name]
    assert [port["name"] for port in only(objects, "Service")["spec"]["ports"]] == ["metrics"]
    assert len(only(objects, "NetworkPolicy")["spec"]["ingress"]) == 1


@pytest.mark.parametrize(
    ("watched", "namespaces"),
    [
        pytest.param([], {}, id="whole cluster"),
        pytest.param(
            ["vision"],
            {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["vision"]}]},
            id="one namespace",
        ),
    ],
)
def test_training_pods_alone_reach_the_reports(render: Render, watched: list[str], namespaces: Object) -> None:
    policy = only(render(networkPolicy={"enabled": True}, watchNamespaces=watched), "NetworkPolicy")["spec"]
    (rule,) = [rule for rule in policy["ingress"] if rule["ports"][0]["port"] == "reports"]
    pods = {"matchLabels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}}
    assert rule["from"] == [{"podSelector": pods, "namespaceSelector": namespaces}]


def environment(objects: list[Object]) -> dict[str, str]:
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


@pytest.mark.parametrize("values", MODES)
def test_the_operator_reads_every_variable_of_the_chart(render: Render, values: Object) -> None:
    variables = environment(render(**values))
    known = {f"DARKROOM_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    assert set(variables) <= known
    settings = Settings.from_environment(variables)
    assert settings.namespaces == tuple(values.get("watchNamespaces", ()))
    assert settings.metrics_port == 8080
    assert settings.log_level == values.get("log", {}).get("level", "INFO")


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        pytest.param("http://tempo.tracing:4318/v1/traces", 4318, id="a port of its own"),
        pytest.param("http://[fd00::1]:4318/v1/traces", 4318, id="IPv6"),
        pytest.param("https://collector.example.com/v1/traces", 443, id="https"),
        pytest.param("http://collector.example.com/v1/traces", 80, id="http"),
    ],
)
def test_the_operator_reaches_the_collector_of_its_traces(render: Render, endpoint: str, port: int) -> None:
    objects = render(tracing={"endpoint": endpoint}, networkPolicy={"enabled": True})
    assert Settings.from_environment(environment(objects)).tracing_endpoint == endpoint
    *_, last = only(objects, "NetworkPolicy")["spec"]["egress"]
    assert last["ports"] == [{"port": port, "protocol": "TCP"}]


def test_replicas_stand_by_for_each_other(render: Render) -> None:
    alone, pair = render(), render(**EVERYTHING)
    assert not [o for o in alone if o["kind"] == "PodDisruptionBudget"]  # it would hold up every drain
    budget = only(pair, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    for objects, replicas, lease in ((alone, 1, f"{NAMESPACE}/darkroom"), (pair, 2, f"{NAMESPACE}/darkroom-x")):
        spec = only(objects, "Deployment")["spec"]
        assert spec["replicas"] == replicas
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert environment(objects)["DARKROOM_LEASE"] == lease


def test_the_operator_is_restricted_and_probed(render: Render) -> None:
    spec = only(render(), "Deployment")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    probes = {name: container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
    assert probes == {
        "livenessProbe": {"path": "/healthz", "port": "metrics"},
        "readinessProbe": {"path": "/readyz", "port": "metrics"},
    }
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "profiles"]
    assert "subPath" not in mount  # kubelet never updates a file that is mounted by subPath


def test_selectors_match_the_pods(render: Render) -> None:
    objects = render(**EVERYTHING)
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        only(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        only(objects, "Service")["spec"]["selector"],
        only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(objects, "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"][
            "matchLabels"
        ],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    monitor = only(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= only(objects, "Service")["metadata"]["labels"].items()
    pods = render(metrics={"podMonitor": {"enabled": True}})
    monitor = only(pods, "PodMonitor")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= only(pods, "Deployment")["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("monitor", "endpoints"), [("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")]
)
def test_a_scrape_leaves_the_namespace_of_a_training(render: Render, monitor: str, endpoints: str) -> None:
    """Without honorLabels it would become exported_namespace, and alerts and dashboard would speak of the operator's."""
    value = monitor[0].lower() + monitor[1:]
    (endpoint,) = only(render(metrics={value: {"enabled": True}}), monitor)["spec"][endpoints]
    assert (endpoint["honorLabels"], endpoint["port"]) == (True, "metrics")


def test_images(render: Render) -> None:
    def image(objects: list[Object]) -> str:
        return only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]

    assert image(render()) == "darkroom/operator:0.1.0"
    assert (
        image(render(imageRegistry="registry.example.com", image={"tag": "x"}))
        == "registry.example.com/darkroom/operator:x"
    )
    assert image(render(**EVERYTHING)) == f"registry.example.com/vision/darkroom/operator@sha256:{'0' * 64}"


def test_the_operator_reads_every_profile_that_the_chart_accepts(render: Render) -> None:
    profiles = parse_profiles(only(render(**EVERYTHING), "ConfigMap", "darkroom-x-profiles")["data"]["profiles.yaml"])
    assert profiles["default"].image == "registry.example.com/vision/darkroom/trainer:7"
    assert profiles["gpu"].to_wire().items() >= PROFILE.items()


def test_the_default_profile_has_the_charts_trainer(render: Render) -> None:
    profiles = parse_profiles(only(render(), "ConfigMap")["data"]["profiles.yaml"])
    assert profiles == {"default": Profile(image="darkroom/trainer:0.1.0")}


def test_chart_and_operator_know_the_same_profile_fields() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["$defs"]["profile"]["properties"]
    fields = Profile.model_json_schema(by_alias=True)["properties"]
    assert set(schema) == set(fields) == set(PROFILE)
    assert set(schema["securityContext"]["properties"]) == set(PROFILE["securityContext"])  # type: ignore[arg-type]


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(schema) - {"global"} == set(yaml.safe_load((CHART / "values.yaml").read_text()))


@pytest.mark.parametrize("keep", [True, False])
def test_crds_are_kept(render: Render, keep: bool) -> None:
    crds = [obj for obj in render(crds={"keep": keep}) if obj["kind"] == "CustomResourceDefinition"]
    assert [crd["spec"]["names"]["kind"] for crd in crds] == ["TrainingJob", "TuningSweep"]
    for crd in crds:
        assert crd["metadata"].get("annotations") == ({"helm.sh/resource-policy": "keep"} if keep else None)


def test_crds_can_be_left_out(render: Render) -> None:
    assert not [o for o in render(crds={"install": False}) if o["kind"] == "CustomResourceDefinition"]


def test_people_get_the_rights_of_their_namespace_role(render: Render) -> None:
    objects = render()
    edit = only(objects, "ClusterRole", "darkroom-edit")
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]
    assert not [
        o for o in render(rbac={"aggregateToUserRoles": False}) if o["metadata"]["name"].endswith(("-edit", "-view"))
    ]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        pytest.param({"watchNamespace": ["a"]}, "watchNamespace", id="a misspelt value"),
        pytest.param({"watchNamespaces": "a"}, "watchNamespaces", id="a string for a list"),
        pytest.param({"profiles": {"default": {"pricePerHour": "1"}}}, "pricePerHour", id="a misspelt profile field"),
        pytest.param({"profiles": {"default": {"pricePerNodeHour": 0.5}}}, "pricePerNodeHour", id="a float price"),
        pytest.param({"profiles": {"default": {"maxNodes": 0}}}, "maxNodes", id="no nodes"),
        pytest.param({"profiles": {"Default": {}}}, "Default", id="a profile with an upper-case name"),
        pytest.param({"profiles": {"default": {"securityContext": {"runAsUser": 0}}}}, "runAsUser", id="root"),
        pytest.param({"profiles": {"default": {"resources": {"cpu": "two"}}}}, "cpu", id="no quantity"),
        pytest.param(
            {"profiles": {"default": {"networkPolicy": {"egress": [{"cidr": "store.example.com"}]}}}},
            "cidr",
            id="a host name in a network policy",
        ),
        pytest.param({"log": {"level": "loud"}}, "level", id="no such level"),
        pytest.param({"image": {"digest": "latest"}}, "digest", id="no digest"),
        pytest.param({"replicas": 0}, "replicas", id="no operator"),
        pytest.param(
            {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
            "metrics.serviceMonitor and metrics.podMonitor",
            id="scraped twice",
        ),
        pytest.param({"metrics": {"perJob": {"limit": 0}}}, "limit", id="series for no job"),
    ],
)
def test_bad_values_are_refused_by_name(offline_helm: Helm, tmp_path: Any, values: Object, field: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = offline_helm("template", "darkroom", CHART, "--values", file)
    assert done.returncode != 0
    assert field in done.stderr
