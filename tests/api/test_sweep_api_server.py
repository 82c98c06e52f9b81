"""A TuningSweep as a real API server takes it: the table of `sweep_cases.py`, verdict by verdict, and the CRD itself."""

import copy
import re
from typing import Any

import pytest

from darkroom_api.crd import SWEEP_COLUMNS, tuning_sweep_crd
from localcluster import Cluster
from tests.api.cases import SAMPLES, Case, Update, edit, samples_of
from tests.api.server import Server
from tests.api.sweep_cases import CASES, FULL, LR, STATUS, SWEEP, UPDATES, stored, tuning_sweep
from tests.api.test_api_server import LARGEST

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_verdict(server: Server, case: Case):
    answer = server.create(tuning_sweep(case.name, case.spec))
    assert answer.accepted == case.accepted, answer.body
    if not case.accepted:
        assert [word for word in case.words if word not in "\n".join(answer.complaints)] == []
    else:
        assert answer.body["spec"] == stored(case.spec)


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: update.id)
def test_update(server: Server, update: Update):
    with server.existing(tuning_sweep("updated", update.before)) as body:
        answer = server.replace(body | {"spec": update.after})
    assert answer.accepted == (update.refused == ()), answer.body
    refused = [line.split(":")[0] for line in answer.complaints if "is immutable" in line]
    assert refused == [f"spec.{field}" for field in update.refused]


def test_samples(cluster: Cluster):
    said = cluster.kubectl("apply", "--dry-run=server", "-f", str(SAMPLES))
    assert said.count("tuningsweep.darkroom.dev/") == len(list(samples_of("TuningSweep"))) > 0, said


def _largest() -> dict[str, Any]:
    """Rules at their most expensive: every list full, every text long."""
    values = [f"{'v' * 250}{number:03}" for number in range(32)]
    first = {"name": "c" * 63, "env": "E" * 128, "choice": {"values": values}}
    conditions = [{"parameter": first["name"], "in": values[:8]}] * 4
    more = [
        LR | {"name": f"{'p' * 61}{number:02}", "path": None, "env": f"{'E' * 126}{number:02}", "when": conditions}
        for number in range(23)
    ]
    parameters = [first, *more]
    warm = [{p["name"]: "v" * 256 for p in parameters}] * 32
    spec = {"parameters": parameters, "warmStart.configurations": warm, "trialTemplate.spec": LARGEST}
    return edit(FULL, spec | {"refit.set": [{"env": f"A{n}", "value": "v" * 256} for n in range(16)]})


def test_the_largest_spec_can_be_checked_and_updated(server: Server):
    with server.existing(tuning_sweep("largest", _largest())) as body:
        assert server.replace(body | {"spec": _largest() | {"suspend": True}}).accepted
        refused = server.replace(body | {"spec": edit(_largest(), {"trialTemplate.spec.container.image": "b"})})
    assert [line for line in refused.complaints if "trialTemplate is immutable" in line]


def test_a_ledger_of_a_thousand_trials_can_be_stored(server: Server):
    row = {**STATUS["ledger"][0], "parameters": {f"parameter-{n}": "0.000123456" for n in range(10)}}
    row["curve"] = " ".join(f"{epoch}:0.123456" for epoch in range(1, 41))
    ledger = [{**row, "number": number} for number in range(1000)]
    with server.existing(tuning_sweep("long", SWEEP)) as body:
        answer = server.replace_status(body | {"status": STATUS | {"ledger": ledger}}, dry=False)
        assert answer.accepted, answer.body
        assert len(answer.body["status"]["ledger"]) == 1000


def test_the_crd_is_stored_as_written(server: Server):
    written, kept = copy.deepcopy(tuning_sweep_crd()["spec"]), server.crd("tuningsweeps.darkroom.dev")["spec"]
    assert kept.pop("conversion") == {"strategy": "None"}
    for column in written["versions"][0]["additionalPrinterColumns"]:
        if not column["priority"]:
            del column["priority"]
    assert kept == written


def test_columns(cluster: Cluster, server: Server):
    """The table that `kubectl get ts -o wide` prints."""
    with server.existing(tuning_sweep("shown", SWEEP)) as body:
        assert server.replace_status(body | {"status": STATUS}, dry=False).accepted
        header, row = cluster.kubectl("get", "ts", "shown", "-o", "wide").splitlines()
    plain = [name.upper() for name, *_, priority, _ in SWEEP_COLUMNS if priority == 0]
    wide = [name.upper() for name, *_, priority, _ in SWEEP_COLUMNS if priority == 1]
    assert header.split() == ["NAME", *plain, *wide]
    cells = re.split(r" {2,}", row.strip())
    assert cells == [
        *("shown", "Running", "12 of 40, 4 running, 3 pruned, 1 failed", "0.93", "4.0000", "3h05m", cells[6]),
        *("Auto", "search-00003", "12.5000 EUR", "Searching"),
    ]


def test_kubectl_explain(cluster: Cluster):
    for path in ("ts.spec.parameters.double", "tuningsweep.spec.trialTemplate.spec.vision", "ts.status.ledger"):
        assert "<empty>" not in cluster.kubectl("explain", path)
    assert "exists only where all of these hold" in cluster.kubectl("explain", "ts.spec.parameters.when")
