"""The dashboard as Grafana reads it: panels, queries and variables."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

BOARD = json.loads((Path(__file__).resolve().parents[1] / "charts/darkroom/files/dashboard.json").read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]


class Query(NamedTuple):
    """One target of a panel."""

    panel: str
    expression: str
    legend: str
    instant: bool
    source: dict[str, str]

    @property
    def labels(self) -> set[str]:
        """Labels that the legend shows."""
        return set(re.findall(r"{{(\w+)}}", self.legend))


class Variable(NamedTuple):
    """A choice above the panels: the values of a label."""

    name: str
    selector: str
    label: str


def queries() -> list[Query]:
    """All of them, in the order of the page."""
    return [
        Query(
            panel["title"], target["expr"], target["legendFormat"], target.get("instant", False), target["datasource"]
        )
        for panel in PANELS
        for target in panel.get("targets", [])
    ]


def variables() -> list[Variable]:
    """Those that ask Prometheus."""
    found = []
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked, variable
            found.append(Variable(variable["name"], *asked.groups()))
    return found


def filled(text: str, **values: str) -> str:
    """With every variable replaced; one without a value is an error."""

    def value(match: re.Match[str]) -> str:
        return values[match[1]]

    return re.sub(r"\$(?:__)?(\w+)", value, text)
