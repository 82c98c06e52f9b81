"""Every value of the chart does something: a row for each, with what it changes where."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.chart.conftest import CHART, Helm, Object, Render

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
MONITOR = {"metrics": {"serviceMonitor": {"enabled": True}}}
PODS = {"metrics": {"podMonitor": {"enabled": True}}}
BOARD = {"metrics": {"dashboard": {"enabled": True}}}
PER_JOB = {"metrics": {"perJob": {"enabled": True}}}
RULES = {"metrics": {"prometheusRule": {"enabled": True}}}
FENCE = {"networkPolicy": {"enabled": True}}
SHOWN = {"dashboard": {"enabled": True}}
DIGEST = "sha256:" + "1" * 64


class Row(NamedTuple):
    """A value that is not the default, and the words that come or go with it."""

    value: Any
    kind: str
    comes: str
    goes: str = ""
    given: dict[str, Any] = {}
    """Other values without which this one means nothing."""


ROWS = {
    "fullnameOverride": Row(
        "vision-training", "Deployment", "name: vision-training-profiles", "name: darkroom-profiles"
    ),
    "imageRegistry": Row("registry.example.com", "ConfigMap", "registry.example.com/darkroom/trainer"),
    "image.repository": Row("mine/operator", "Deployment", "mine/operator:"),
    "image.tag": Row("7", "Deployment", "darkroom/operator:7"),
    "image.digest": Row(DIGEST, "Deployment", f"darkroom/operator@{DIGEST}"),
    "image.pullPolicy": Row("Always", "Deployment", "imagePullPolicy: Always", "IfNotPresent"),
    "replicas": Row(3, "PodDisruptionBudget", "maxUnavailable: 1"),
    "imagePullSecrets": Row(["registry"], "Deployment", "imagePullSecrets"),
    "trainer.image.repository": Row("mine/trainer", "ConfigMap", "mine/trainer:"),
    "trainer.image.tag": Row("7", "ConfigMap", "darkroom/trainer:7"),
    "trainer.image.digest": Row(DIGEST, "ConfigMap", f"darkroom/trainer@{DIGEST}"),
    "profiles.default": Row({"maxNodes": 3}, "ConfigMap", "maxNodes: 3"),
    "watchNamespaces": Row(["vision"], "Role", "namespace: vision"),
    "crds.install": Row(False, "CustomResourceDefinition", "", "trainingjobs.darkroom.dev"),
    "crds.keep": Row(False, "CustomResourceDefinition", "", "resource-policy"),
    "rbac.create": Row(False, "ClusterRoleBinding", "", "name: darkroom"),
    "rbac.aggregateToUserRoles": Row(False, "ClusterRole", "", "aggregate-to-edit"),
    "admissionPolicy.enabled": Row(False, "ValidatingAdmissionPolicy", "", "darkroom-status"),
    "admissionPolicy.requireProfileUse": Row(True, "ValidatingAdmissionPolicy", "darkroom-users"),
    "admissionPolicy.requireCreateJobs": Row(True, "ValidatingAdmissionPolicy", "darkroom-users"),
    "serviceAccount.create": Row(False, "ServiceAccount", "", "name: darkroom"),
    "serviceAccount.name": Row("trains", "ClusterRoleBinding", "name: trains"),
    "serviceAccount.annotations": Row({"a": "b"}, "ServiceAccount", "a: b"),
    "log.level": Row("DEBUG", "Deployment", "DEBUG", "INFO"),
    "log.format": Row("plain", "Deployment", "plain", "json"),
    "reports.enabled": Row(False, "Secret", "", "darkroom-reports"),
    "metrics.perJob.enabled": Row(True, "Deployment", "DARKROOM_OBJECT_SERIES\n"),
    "metrics.perJob.limit": Row(7, "Deployment", "'7'", "'200'", given=PER_JOB),
    "metrics.perJob.keepSeconds": Row(7, "Deployment", "'7'", "'900'", given=PER_JOB),
    "metrics.serviceMonitor.enabled": Row(True, "ServiceMonitor", "path: /metrics"),
    "metrics.serviceMonitor.interval": Row("15s", "ServiceMonitor", "interval: 15s", given=MONITOR),
    "metrics.serviceMonitor.labels": Row({"a": "b"}, "ServiceMonitor", "a: b", given=MONITOR),
    "metrics.podMonitor.enabled": Row(True, "PodMonitor", "path: /metrics"),
    "metrics.podMonitor.interval": Row("15s", "PodMonitor", "interval: 15s", given=PODS),
    "metrics.podMonitor.labels": Row({"a": "b"}, "PodMonitor", "a: b", given=PODS),
    "metrics.dashboard.enabled": Row(True, "ConfigMap", "grafana_dashboard: '1'"),
    "metrics.dashboard.labels": Row({"a": "b"}, "ConfigMap", "a: b", given=BOARD),
    "metrics.dashboard.annotations": Row({"grafana_folder": "b"}, "ConfigMap", "grafana_folder: b", given=BOARD),
    "metrics.prometheusRule.enabled": Row(True, "PrometheusRule", "DarkroomOperatorDown"),
    "metrics.prometheusRule.labels": Row({"a": "b"}, "PrometheusRule", "a: b", given=RULES),
    "metrics.prometheusRule.runbooks": Row("https://wiki/r", "PrometheusRule", "https://wiki/r#", given=RULES),
    "tracing.endpoint": Row("http://tempo:4318/v1/traces", "NetworkPolicy", "port: 4318", given=FENCE),
    "tracing.headersSecret": Row("collector", "Deployment", "name: collector\n              key: headers"),
    "networkPolicy.enabled": Row(True, "NetworkPolicy", "policyTypes"),
    "networkPolicy.metricsFrom": Row([{"podSelector": {}}], "NetworkPolicy", "- podSelector: {}", given=FENCE),
    "networkPolicy.apiServerPorts": Row([1234], "NetworkPolicy", "port: 1234", "port: 6443", given=FENCE),
    "dashboard.enabled": Row(True, "Deployment", "darkroom-dashboard"),
    "dashboard.resources.requests.cpu": Row("21m", "Deployment", "cpu: 21m", given=SHOWN),
    "dashboard.resources.requests.memory": Row("161Mi", "Deployment", "memory: 161Mi", given=SHOWN),
    "dashboard.resources.limits.memory": Row("385Mi", "Deployment", "memory: 385Mi", given=SHOWN),
    "resources.requests.cpu": Row("51m", "Deployment", "cpu: 51m"),
    "resources.requests.memory": Row("129Mi", "Deployment", "memory: 129Mi"),
    "resources.limits.memory": Row("513Mi", "Deployment", "memory: 513Mi"),
    "nodeSelector": Row({"a": "b"}, "Deployment", "nodeSelector:\n        a: b"),
    "tolerations": Row([{"key": "infra"}], "Deployment", "key: infra"),
    "affinity": Row({"nodeAffinity": {}}, "Deployment", "nodeAffinity"),
    "priorityClassName": Row("critical", "Deployment", "priorityClassName: critical"),
    "podLabels": Row({"a": "b"}, "Deployment", "a: b"),
    "podAnnotations": Row({"a": "b"}, "Deployment", "a: b"),
}


def leaves(values: Any, path: str = "") -> list[str]:
    """Paths of all values that have none below them."""
    if not isinstance(values, dict) or not values:
        return [path]
    return [leaf for key, child in values.items() for leaf in leaves(child, f"{path}.{key}" if path else key)]


def merged(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return base | {head: merged(base.get(head, {}), rest, value) if rest else value}


def of_kind(objects: list[Object], kind: str) -> str:
    return yaml.safe_dump_all([o for o in objects if o["kind"] == kind], sort_keys=False)


def test_every_value_has_a_row() -> None:
    assert set(ROWS) == set(leaves(VALUES))


@pytest.mark.parametrize("path", ROWS)
def test_a_value_has_its_effect(render: Render, path: str) -> None:
    row = ROWS[path]
    before = of_kind(render(**row.given), row.kind)
    after = of_kind(render(**merged(row.given, path, row.value)), row.kind)
    if row.comes:
        assert row.comes in after and row.comes not in before
    if row.goes:
        assert row.goes in before and row.goes not in after


def test_a_value_of_another_type_is_refused_by_its_path(each_offline_helm: Helm, tmp_path: Path) -> None:
    """All at once, for Helm names all that it finds."""
    wrong: dict[str, Any] = {}
    for path in ROWS:
        mapping = path in ("nodeSelector", "affinity", "profiles.default") or path.endswith(("abels", "nnotations"))
        wrong = merged(wrong, path, "a text" if mapping else {"not": "this"})
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(wrong))
    done = each_offline_helm("template", "darkroom", CHART, "--values", file)
    assert done.returncode != 0
    assert [path for path in ROWS if f"at '/{path.replace('.', '/')}'" not in done.stderr] == []


def test_a_value_that_does_not_exist_is_refused_by_its_name(each_offline_helm: Helm) -> None:
    maps = {"nodeSelector", "affinity", "podLabels", "podAnnotations", "serviceAccount.annotations"}
    parents = {path.rpartition(".")[0] for path in ROWS if path not in maps} - {
        "resources.requests",
        "dashboard.resources.requests",
        "dashboard.resources.limits",
        "resources.limits",
    }
    flags = [f"--set={'.'.join(filter(None, (parent, 'mispelt')))}.x=1" for parent in sorted(parents - {"profiles"})]
    done = each_offline_helm("template", "darkroom", CHART, *flags)
    complaints = [line for line in done.stderr.splitlines() if "additional properties 'mispelt' not allowed" in line]
    assert len(complaints) == len(flags), done.stderr
