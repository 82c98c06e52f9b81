"""The example of docs/guides/reporting.md, as it stands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from darkroom_api.report import Action, ExitCode, LiveReport
from tests.report_server import PATH, ReportServer

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/reporting.md"


def example() -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL))


def run(environ: dict[str, str]) -> str:
    code = f"step = 910\n{example()}\nprint(action)\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], env=os.environ | environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_example_reports_and_hears(tmp_path):
    with ReportServer(tmp_path) as server:
        server.answer = lambda _: (200, {"version": 1, "action": "yield", "accepted": True})
        assert run(server.environ) == "yield"
    (received,) = server.received
    assert (received.path, received.token) == (PATH, "Bearer a-token")
    report = LiveReport.decode(json.dumps(received.body))
    assert (report.sequence, report.step, report.eta_seconds, report.checkpoint_step) == (910, 910, 1200, 900)


def test_the_example_goes_on_whatever_happens(tmp_path):
    assert run({}) == "continue"
    with ReportServer(tmp_path) as server:
        server.answer = lambda _: (503, {"error": "not ready"})
        assert run(server.environ) == "continue"
    assert run(server.environ) == "continue"


def test_the_guide_knows_every_field_and_action():
    text = GUIDE.read_text()
    described = {alias for field in LiveReport.model_fields.values() if (alias := field.alias)}
    unsaid = {"version", "resumedStep", "time"}  # the built-in trainer's own
    assert [name for name in described - unsaid if f"`{name}`" not in text] == []
    assert [action for action in Action if f"| `{action.value}` |" not in text] == []
    assert f"| {int(ExitCode.ASKED_TO_LEAVE)} |" in text
