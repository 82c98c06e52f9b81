"""Sweeps as studies and pages, for those who look at them."""

import json
from html.parser import HTMLParser

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from darkroom_operator import report
from darkroom_operator.core.tuning_sweep import ledger
from darkroom_operator.core.tuning_sweep.page import page
from darkroom_operator.core.tuning_sweep.study import importances, look
from tests.core.sweep_world import START, SweepWorld

TWO = [{"metric": "val/top1"}, {"metric": "latencyMs", "direction": "Minimize"}]


def searched(**spec) -> SweepWorld:
    """A sweep at its end."""
    world = SweepWorld(stopping={"maxTrials": 8}, **spec)
    world.settle()
    for _ in range(20):
        for number, name in enumerate(world.running):
            metrics = {"val/top1": f"{world.score(world.parameters(name)):.6f}", "latencyMs": f"{20 + number}"}
            world.complete(name, metrics=metrics)
        world.settle()
    assert world.status["finished"]
    world.body |= {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TuningSweep"}
    return world


class Reader(HTMLParser):
    """Which tags and addresses a page has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def read(world: SweepWorld):
    seen = look(world.body, START)
    assert seen
    return seen


@pytest.fixture
def long_search(monkeypatch) -> SweepWorld:
    """One whose oldest trials have moved into pages."""
    monkeypatch.setattr(ledger, "KEPT_ROWS", 4)
    monkeypatch.setattr(ledger, "PAGE_ROWS", 3)
    world = searched()
    assert 0 < sum(entry["rows"] for entry in world.status["ledgerPages"]) < 8
    return world


def test_trials_come_out_of_their_pages(long_search):
    pages = [found for body in long_search.pages.values() if (found := ledger.read_page(body))]
    seen = look(long_search.body, START, pages)
    assert seen
    assert [trial.state.name for trial in seen.trials] == ["COMPLETE"] * 8
    assert all(trial.params for trial in seen.trials)


def test_trials_whose_page_is_gone_do_not_look_as_if_they_ran(long_search):
    paged = sum(entry["rows"] for entry in long_search.status["ledgerPages"])
    assert [trial.state.name for trial in read(long_search).trials] == ["FAIL"] * paged + ["COMPLETE"] * (8 - paged)


def test_a_report_of_a_long_search_asks_for_its_pages(long_search, tmp_path, capsys):
    file, pages, html = (tmp_path / name for name in ("sweep.json", "pages.json", "sweep.html"))
    file.write_text(json.dumps(long_search.body))
    assert report.main([str(file), "--html", str(html)]) == 1
    words = capsys.readouterr().err
    assert "the ConfigMap search-ledger-00000 has 3 of its trials: give --pages FILE" in words
    assert "--selector darkroom.dev/tuning-sweep=search" in words
    other = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "..."}}
    pages.write_text(json.dumps({"kind": "List", "items": [other, *long_search.pages.values()]}))
    assert report.main([str(file), "--pages", str(pages), "--html", str(html)]) == 0
    assert Reader(html.read_text()).tags.count("circle") == 8


def test_a_study_has_every_trial_under_its_number():
    world = SweepWorld(parallelism=2)
    world.settle()
    world.complete("search-00001", 0.5)
    world.settle()
    states = [trial.state.name for trial in read(world).trials]
    assert states == ["RUNNING", "COMPLETE", "RUNNING"]
    assert read(world).trials[1].user_attrs["job"] == "search-00001"


def test_what_cannot_be_read_is_left_out():
    world = SweepWorld()
    world.body["spec"] = {}
    assert look(world.body, START) is None


def test_importances_name_what_matters():
    """The value is the learning rate's, and nothing else."""
    world = SweepWorld()
    rates = [f"{0.0002 * 1.15**number:.6f}" for number in range(40)]
    parameters = [p["name"] for p in world.body["spec"]["parameters"]]
    assert set(parameters) == {"lr", "width"}
    world.body["status"] = {
        "ledger": [
            {
                "number": number,
                "result": "Succeeded",
                "parameters": {"lr": rate, "width": str(1 + number * 7 % 64)},
                "values": [rate],
            }
            for number, rate in enumerate(rates)
        ]
    }
    found = importances(read(world))
    assert found["lr"] > found["width"]
    assert importances(read(SweepWorld())) == {}


def test_a_page_holds_everything_it_needs():
    world = searched()
    text = page(world.body, read(world), {"lr": 0.75})
    reader = Reader(text)
    assert "script" not in reader.tags
    assert reader.addresses == []
    assert reader.tags.count("circle") == 8
    assert reader.tags.count("polyline") == 1 + 8  # the best so far, and a line for each trial
    assert "75%" in text
    assert world.status["best"]["value"] in text


def test_a_page_of_two_objectives_shows_the_front():
    world = searched(objectives=TWO)
    assert "Pareto front" in page(world.body, read(world), {})


def test_a_page_before_the_first_trial():
    text = page(SweepWorld().body, read(SweepWorld()), {})
    assert text.count("too little to show") == 3


def test_names_are_text_and_no_markup():
    world = searched()
    world.body["status"]["refit"] = {"job": "search-refit-00000", "trial": 0, "state": "<b>bold"}
    assert "&lt;b&gt;bold" in page(world.body, read(world), {"<i>": 0.5})
    assert "&lt;i&gt;" in page(world.body, read(world), {"<i>": 0.5})


def test_from_a_file_to_a_page_and_a_study(tmp_path, capsys):
    world = searched()
    file, html, log = (tmp_path / name for name in ("sweep.json", "sweep.html", "sweep.log"))
    file.write_text(json.dumps(world.body))
    assert report.main([str(file), "--html", str(html), "--study", str(log)]) == 0
    assert "vision/search" in html.read_text()
    study = optuna.load_study(study_name="vision/search", storage=JournalStorage(JournalFileBackend(str(log))))
    assert f"{study.best_value:.6f}" == f"{float(world.status['best']['value']):.6f}"
    assert [trial.number for trial in study.trials] == list(range(8))
    assert report.main([str(file), "--study", str(log)]) == 1
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "body", [{"kind": "Pod"}, {"kind": "TuningSweep", "metadata": {"name": "a", "namespace": "b", "uid": "c"}}]
)
def test_what_is_no_sweep_is_refused(tmp_path, capsys, body):
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(body))
    assert report.main([str(file), "--html", str(tmp_path / "x.html")]) == 1
    assert capsys.readouterr().err.startswith("report: ")
