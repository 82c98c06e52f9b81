"""optuna-dashboard over sweeps of a real API server: what it shows, and that nothing can be changed through it."""

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core.tuning_sweep import ledger
from tests.kube import eventually
from tests.operator_process import free_port

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.cluster
SPEC: dict[str, Any] = {
    "objectives": [{"metric": "val/top1"}],
    "parameters": [
        {"name": "lr", "env": "LR", "double": {"min": "0.001", "max": "0.1", "scale": "Log"}},
        {"name": "width", "env": "WIDTH", "choice": {"values": ["16", "32"]}},
    ],
    "stopping": {"maxTrials": 9},
    "trialTemplate": {"spec": {"container": {"image": "localhost/mine:1"}}},
}


def row(number: int, value: float | None = None, result: str = "Succeeded") -> dict[str, Any]:
    parameters = {"lr": f"{0.002 * (number + 1):.6f}", "width": ("16", "32")[number % 2]}
    values = {} if value is None else {"values": [f"{value:.6f}"]}
    return {"number": number, "result": result, "parameters": parameters, "curve": f"1:{0.1 * number:.2f}", **values}


LEDGER = [*(row(n, 0.5 + 0.05 * n) for n in range(6)), row(6, result="Pruned"), row(7, result="Failed")]


class Page:
    """The dashboard's answers."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        is_json = (answer.headers.get_content_type() or "") == "application/json"
        return answer.status, json.loads(text) if is_json else text.decode()

    def studies(self) -> list[dict[str, Any]]:
        try:
            status, said = self.ask("GET", "/api/studies")
        except OSError:
            return []
        return said["study_summaries"] if status == 200 else []


@pytest.fixture
def sweep(kube, namespace) -> str:
    """One of nine trials, of which the first three are in a page of its ledger."""
    head = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TuningSweep", "metadata": {"name": "search"}}
    body = kube.create(head | {"spec": SPEC}, namespace)
    rows = [TrialRecord.model_validate(row) for row in LEDGER[:3]]
    page = ledger.read_page(kube.create(ledger.page("search", namespace, body["metadata"]["uid"], rows), namespace))
    status = {
        "ledger": LEDGER[3:],
        "ledgerPages": [page.entry.to_wire()],
        "trials": {"created": 9, "summary": "8 of 9"},
        "observedGeneration": 1,
    }
    kube.request("PUT", kube.path("TuningSweep", namespace, "search/status"), body | {"status": status})
    return f"{namespace}/search"


@pytest.fixture
def page(cluster, namespace, sweep, tmp_path) -> Iterator[Page]:
    port = free_port()
    environment = os.environ | {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PYTHONPATH": str(ROOT / "operator"),
        "DARKROOM_DASHBOARD_PORT": str(port),
        "DARKROOM_NAMESPACES": namespace,
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "darkroom_operator.dashboard"], env=environment, stderr=log)
        try:
            page = Page(port)
            eventually(page.studies, within=150, what=f"the dashboard: {(tmp_path / 'log').read_text()}")
            yield page
        finally:
            process.terminate()
            process.wait(10)


def test_it_shows_the_sweep_follows_it_and_changes_nothing(kube, page, namespace, sweep):
    (study,) = page.studies()
    assert study["study_name"] == sweep
    status, detail = page.ask("GET", f"/api/studies/{study['study_id']}")
    assert status == 200
    states = [trial["state"] for trial in detail["trials"]]
    assert states == [*["Complete"] * 6, "Pruned", "Fail", "Running"]
    assert detail["trials"][5]["values"] == [0.75]
    assert page.ask("GET", "/dashboard")[0] == 200
    path = f"/api/studies/{study['study_id']}"
    for method, where in (
        ("DELETE", path),
        ("POST", "/api/studies"),
        ("POST", f"{path}/rename"),
        ("PUT", f"{path}/note"),
        ("POST", "/api/trials/0/tell"),
        ("POST", "/api/trials/0/user-attrs"),
        ("PATCH", path),
    ):
        assert page.ask(method, where, {"study_name": "x"})[0] == 405, (method, where)
    assert [found["study_name"] for found in page.studies()] == [sweep]
    kube.delete("TuningSweep", namespace, "search")
    eventually(lambda: page.studies() == [], within=30, what="the sweep to go")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium: apt-get install chromium")
def test_a_browser_draws_it(page, sweep, tmp_path):
    """Headless Chromium runs the page's program, and what it draws names the sweep. SCREENSHOT=FILE keeps the picture."""
    picture = Path(os.environ.get("SCREENSHOT", tmp_path / "dashboard.png"))
    (study,) = page.studies()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    settled = ["--virtual-time-budget=20000", "--window-size=1400,1000"]
    address = f"http://127.0.0.1:{page.port}/dashboard/studies/{study['study_id']}"
    drawn = subprocess.run(
        ["chromium", *flags, *settled, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True
    )
    assert sweep in drawn.stdout
    subprocess.run(
        ["chromium", *flags, *settled, f"--screenshot={picture}", address], capture_output=True, timeout=120, check=True
    )
    assert picture.stat().st_size > 20_000
