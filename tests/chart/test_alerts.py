"""The alerts: rules that Prometheus reads, metrics that the operator has, words that help."""

import re
from pathlib import Path

import pytest
import yaml

from tests.chart.conftest import CHART, ROOT, Render, only
from tests.prometheus import names_in_queries, promtool

ALERTS = CHART / "files/alerts.yaml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
BY_NAME = pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])


def test_prometheus_reads_them():
    done = promtool("check", "rules", ALERTS)
    assert done.returncode == 0, done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_they_fire_when_they_should_and_not_else():
    done = promtool("test", "rules", Path(__file__).parent / "alerts_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_is_fired_in_a_test():
    fired = (Path(__file__).parent / "alerts_test.yaml").read_text()
    assert [rule["alert"] for rule in RULES if rule["alert"] not in fired] == []


@BY_NAME
def test_its_metrics_are_the_operators(rule):
    used = set(re.findall(r"\b(?:darkroom|workqueue)_\w+", rule["expr"]))
    assert used
    assert used <= names_in_queries()


@BY_NAME
def test_it_says_what_it_means_and_what_to_do(rule):
    words = rule["annotations"]
    assert set(words) == {"summary", "description", "runbook_url"}
    assert words["runbook_url"] == f"RUNBOOKS#{rule['alert'].lower()}"
    assert f"\n## {rule['alert']}\n" in (ROOT / "docs/runbooks.md").read_text()
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_the_chart_wraps_them(render: Render):
    values = {"enabled": True, "runbooks": "https://wiki/runbooks", "labels": {"release": "prometheus"}}
    rendered = only(render(metrics={"prometheusRule": values}), "PrometheusRule")
    assert rendered["metadata"]["labels"]["release"] == "prometheus"
    wrapped = [rule for group in rendered["spec"]["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in wrapped] == [rule["alert"] for rule in RULES]
    assert wrapped[0]["annotations"]["runbook_url"] == "https://wiki/runbooks#darkroomoperatordown"
    assert wrapped[1]["annotations"]["summary"] == RULES[1]["annotations"]["summary"]
