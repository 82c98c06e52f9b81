"""Argo CD's health of a TrainingJob: the script itself, run by a Lua interpreter on the statuses of a job's life."""

import json
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.chart.conftest import ROOT

SCRIPT = ROOT / "deploy/gitops/argocd/health.lua"


def condition(name: str, status: str = "True", reason: str = "Because", message: str = "of this") -> dict[str, Any]:
    return {"type": name, "status": status, "reason": reason, "message": message, "observedGeneration": 1}


def test_the_patch_for_argo_cd_has_the_script() -> None:
    data = yaml.safe_load(SCRIPT.with_name("argocd-cm.yaml").read_text())["data"]
    assert data == {"resource.customizations.health.darkroom.dev_TrainingJob": SCRIPT.read_text()}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(None, ("Progressing", "Waiting for the operator"), id="no status yet"),
        pytest.param({"state": "Pending"}, ("Progressing", "Waiting for the operator"), id="no conditions yet"),
        pytest.param(
            {"observedGeneration": 0, "conditions": [condition("Ready")]},
            ("Progressing", "Waiting for the operator to see the change"),
            id="a status of an older spec",
        ),
        pytest.param(
            {
                "conditions": [
                    condition("Ready", "False"),
                    condition("Reconciling", reason="Unschedulable", message="no GPU"),
                ]
            },
            ("Progressing", "Unschedulable: no GPU"),
            id="waits for nodes",
        ),
        pytest.param(
            {"conditions": [condition("Ready", reason="Running", message=""), condition("Reconciling", "False")]},
            ("Healthy", "Running"),
            id="runs",
        ),
        pytest.param(
            {"conditions": [condition("Complete", reason="TargetReached", message="0.97"), condition("Ready")]},
            ("Healthy", "TargetReached: 0.97"),
            id="is complete",
        ),
        pytest.param(
            {
                "conditions": [
                    condition("Ready", reason="Suspended"),
                    condition("Suspended", reason="Suspended", message=""),
                ]
            },
            ("Suspended", "Suspended"),
            id="is suspended as asked",
        ),
        pytest.param(
            {
                "conditions": [
                    condition("Ready", "False"),
                    condition("Stalled", reason="ProfileNotFound", message="gpu"),
                ]
            },
            ("Degraded", "ProfileNotFound: gpu"),
            id="can't begin",
        ),
        pytest.param(
            {"conditions": [condition("Stalled"), condition("Failed", reason="DataError", message="no classes")]},
            ("Degraded", "DataError: no classes"),
            id="has failed",
        ),
    ],
)
def test_health(status: dict[str, Any] | None, expected: tuple[str, str]) -> None:
    job: dict[str, Any] = {"metadata": {"generation": 1}} | ({} if status is None else {"status": status})
    assert run(job) == expected


def run(job: dict[str, Any]) -> tuple[str, str]:
    """Argo CD gives the object as the table `obj` and takes the table that the script returns."""
    lua = shutil.which("lua5.4") or shutil.which("lua")
    assert lua, "these tests run the script: apt-get install lua5.4"
    program = f"obj = {literal(job)}\nlocal hs = (function()\n{SCRIPT.read_text()}\nend)()\nprint(hs.status)\nprint(hs.message)"
    lines = subprocess.run([lua, "-"], input=program, capture_output=True, text=True, check=True).stdout.splitlines()
    return lines[0], lines[1]


def literal(value: Any) -> str:
    """JSON as Lua writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(key)}] = {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(literal, value)) + "}"
    return json.dumps(value)
