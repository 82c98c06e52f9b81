"""The record of a long search: the oldest rows move from the status into ConfigMaps, and none is lost or doubled on the way."""

import json

import pytest

from darkroom_api.v1alpha1.tuning_sweep_status import TrialRecord
from darkroom_operator.core.tuning_sweep import ledger
from darkroom_operator.core.tuning_sweep.plan import plan
from darkroom_operator.core.types import Refusal
from tests.core.sweep_world import SweepWorld

TPE = {"name": "TPE", "seed": 7, "startupTrials": 3}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(ledger, "KEPT_ROWS", 4)
    monkeypatch.setattr(ledger, "PAGE_ROWS", 3)


def long_search(**spec) -> SweepWorld:
    world = SweepWorld(algorithm=TPE, **{"stopping": {"maxTrials": 12}, **spec})
    world.run_out()
    return world


def rows(first: int, last: int, size: int = 0) -> list[TrialRecord]:
    return [TrialRecord(number=n, result="Failed", message="x" * size) for n in range(first, last + 1)]


def test_the_oldest_rows_are_in_pages(small):
    world = long_search()
    assert [row["number"] for row in world.ledger] == list(range(12))
    assert [row["number"] for row in world.status["ledger"]] == [9, 10, 11]
    assert sorted(world.pages) == ["search-ledger-00000", "search-ledger-00003", "search-ledger-00006"]
    entries = [(entry["name"], entry["first"], entry["rows"]) for entry in world.status["ledgerPages"]]
    assert entries == [(name, 3 * n, 3) for n, name in enumerate(sorted(world.pages))]
    page = world.pages["search-ledger-00000"]
    assert page["immutable"] is True
    assert page["metadata"]["ownerReferences"][0]["uid"] == "uid-of-search"
    assert world.status["trials"]["summary"] == "12 of 12"


def test_it_makes_no_difference_where_a_row_is(small, monkeypatch):
    paged = long_search()
    monkeypatch.setattr(ledger, "KEPT_ROWS", 1000)
    whole = long_search()
    assert whole.pages == {}
    assert paged.ledger == whole.status["ledger"]
    assert paged.status["best"] == whole.status["best"]


def test_raising_max_trials_goes_on_after_a_restart(small):
    world = long_search()
    before = world.ledger
    world.jobs.clear()
    world.restart()
    world.edit(stopping={"maxTrials": 14})
    world.run_out()
    assert world.ledger[:12] == before
    assert [row["number"] for row in world.ledger] == list(range(14))
    assert world.made[-2:] == ["search-00012", "search-00013"]


def test_a_page_that_is_deleted_is_made_again(small):
    world = long_search()
    lost = world.pages.pop("search-ledger-00003")
    world.settle()
    assert world.pages["search-ledger-00003"] == lost
    assert world.status["state"] == "Complete"


@pytest.mark.parametrize("how", ["deleted", "edited", "somebody else's"])
def test_without_a_page_nothing_is_guessed(small, how):
    world = long_search()
    world.restart()
    page = world.pages["search-ledger-00003"]
    if how == "deleted":
        del world.pages["search-ledger-00003"]
    elif how == "edited":
        page["data"]["rows"] = page["data"]["rows"].replace("Succeeded", "Failed", 1)
    else:
        page["metadata"]["ownerReferences"][0]["uid"] = "another"
    before = world.status["ledgerPages"]
    world.edit(stopping={"maxTrials": 14})
    world.settle()
    assert (world.status["state"], world.ready[0]) == ("Stalled", "LedgerLost")
    assert "ConfigMap search-ledger-00003 with the record of trials 3 to 5" in world.ready[1]
    assert world.status["ledgerPages"] == before
    assert len(world.made) == 12


def test_a_page_whose_name_is_taken_waits_and_the_search_goes_on(small):
    world = SweepWorld(stopping={"maxTrials": 12})
    while len(world.status.get("ledger", [])) <= 4:
        world.look()
        world.complete(world.running[0])
    world.refusal = Refusal("ConfigMap", "search-ledger-00000", 409, "the name belongs to an object of somebody else")
    decision = plan(world.facts())
    assert [body["kind"] for body in decision.create] == []
    assert decision.status["state"] == "Stalled"


@pytest.mark.parametrize(
    ("stored", "wanted", "unfinished", "expected"),
    [
        pytest.param(rows(0, 3), rows(0, 3), set(), [], id="room enough"),
        pytest.param(rows(0, 4), rows(0, 4), set(), [0, 1, 2], id="too many"),
        pytest.param(rows(3, 8), rows(3, 8), set(), [3, 4, 5], id="after a page"),
        pytest.param(rows(0, 4), rows(0, 4), {1}, [0], id="a trial that came back runs"),
        pytest.param(rows(0, 4), [*rows(0, 1), *rows(2, 4, size=9)], set(), [0, 1], id="a row is about to change"),
        pytest.param([*rows(0, 1), *rows(3, 6)], [*rows(0, 1), *rows(3, 6)], set(), [0, 1], id="one is under way"),
        pytest.param(rows(0, 2, size=250), rows(0, 2, size=250), set(), [0, 1], id="too large"),
    ],
)
def test_what_is_due(small, monkeypatch, stored, wanted, unfinished, expected):
    monkeypatch.setattr(ledger, "KEPT_BYTES", 700)
    monkeypatch.setattr(ledger, "PAGE_BYTES", 650)
    assert [row.number for row in ledger.due(stored, wanted, unfinished)] == expected


def test_what_is_no_page():
    body = ledger.page("search", "vision", "uid", rows(0, 1))
    assert ledger.read_page(body | {"data": {}}) is None
    assert ledger.read_page(body | {"data": {"rows": "{broken"}}) is None
    newer = json.dumps({"number": 0, "result": "Failed", "ofANewerVersion": 1})
    assert ledger.read_page(body | {"data": {"rows": newer}}).rows[0].number == 0
