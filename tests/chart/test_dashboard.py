"""The dashboard as a file: Grafana's shape, the operator's metrics. tests/controlplane runs its queries."""

import json
import re
from itertools import combinations

import pytest

from tests.chart.conftest import Render, only
from tests.dashboard import BOARD, PANELS, queries
from tests.prometheus import names_in_queries


def test_the_chart_wraps_it_for_grafanas_sidecar(render: Render):
    objects = render(metrics={"dashboard": {"enabled": True, "annotations": {"grafana_folder": "Vision"}}})
    rendered = only(objects, "ConfigMap", "darkroom-dashboard")
    assert rendered["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert rendered["metadata"]["annotations"] == {"grafana_folder": "Vision"}
    assert json.loads(rendered["data"]["darkroom.json"]) == BOARD


def test_its_metrics_are_the_operators():
    known = names_in_queries()
    for query in queries():
        used = set(re.findall(r"\b(?:darkroom|workqueue|leader_election)_\w+", query.expression))
        assert used and used <= known, query


def test_every_panel_has_a_place_a_name_and_words():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert all(panel["description"].endswith(".") for panel in PANELS if panel["type"] != "row")
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)
        assert one["x"] + one["w"] <= 24


@pytest.mark.parametrize("query", queries(), ids=lambda query: f"{query.panel} {query.legend}")
def test_a_query_uses_the_data_source_that_is_chosen(query):
    assert query.source == {"type": "prometheus", "uid": "${datasource}"}
