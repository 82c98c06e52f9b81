"""What a person sees of a run: the page, the model card, TensorBoard's files, the progress bar."""

import base64
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from darkroom_api.report import ExitCode
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.export import load_model
from darkroom_trainer.host import Host
from darkroom_trainer.summary import page
from darkroom_trainer.summary.card import model_card
from darkroom_trainer.summary.charts import Curve, line_chart, stacked_bar, ticks
from darkroom_trainer.summary.history import history_of, read_history
from darkroom_trainer.summary.review import Review, Reviewer
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import SampleRef, Verdicts
from darkroom_trainer.train import train
from tests.trainer.images import COLORS, one_thread, vision_config, write_colors
from tests.trainer.processes import ROOT, toy_config
from tests.trainer.toy_task import Toy

# --- What metrics.jsonl says ---


def started(step: int, **carried: float) -> dict[str, Any]:
    return {"event": "started", "at": 0.0, "step": step, "world": 1, "device": "CPU", "carried": carried, "recipe": {}}


def progress(step: int, loss: float, **time: float) -> dict[str, Any]:
    facts = {"epoch": 1, "epochs": 2, "steps": 20, "learningRate": 0.1, "imagesPerSecond": 100.0}
    return {"event": "progress", "at": 1.0, "step": step, "time": time, "metrics": {"train/loss": loss}, **facts}


def evaluation(step: int, top1: float, *, best: bool = True) -> dict[str, Any]:
    metrics = {"val/top1": top1}
    return {"event": "evaluation", "at": 2.0, "epoch": step // 10, "step": step, "best": best, "metrics": metrics}


def test_what_a_crash_undid_is_not_shown_but_its_time_was_spent():
    history = history_of(
        [
            started(0),
            progress(5, 2.0, compute=5.0),
            progress(9, 1.0, compute=9.0, startup=1.0),
            started(5),
            progress(8, 1.5, compute=3.0),
        ]
    )
    assert history.curve("train/loss") == [(5, 2.0), (8, 1.5)]
    assert history.time == {"compute": 12.0, "startup": 1.0}
    assert [start["step"] for start in history.starts] == [0, 5]


def test_time_that_a_start_carries_on_is_counted_once():
    """Workers of an elastic node that meet again: their clock goes on where the last one's was."""
    history = history_of(
        [started(0), progress(9, 1.0, compute=9.0), started(9, compute=9.0), progress(12, 1.0, compute=14.0)]
    )
    assert history.time == {"compute": 14.0}


def test_an_evaluation_that_a_restart_repeats_counts_once():
    history = history_of([started(0), evaluation(10, 0.5), started(10), evaluation(10, 0.6)])
    assert history.curve("val/top1") == [(10, 0.6)]
    assert history.best["metrics"] == {"val/top1": 0.6}


def test_lines_that_a_kill_cut_short_are_passed_over(tmp_path):
    text = "\n".join(map(json.dumps, [started(0), progress(5, 2.0)])) + '\n{"event": "progr'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_history(tmp_path).curve("train/loss") == [(5, 2.0)]
    assert "Nothing was measured yet" in page.render(read_history(tmp_path / "nowhere"), None)


# --- Charts ---


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 37, [0, 10, 20, 30]),
        (-3, 3, [-2, 0, 2]),
        (0.91, 0.934, [0.91, 0.915, 0.92, 0.925, 0.93]),
    ],
)
def test_ticks_are_round_numbers_between_the_ends(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_chart_is_well_formed_whatever_is_in_it():
    curves = [Curve("a < b & c", [(0, 1.0), (1, float("nan")), (2, 3.0)]), Curve("flat", [(0, 2.0), (2, 2.0)])]
    lines = ET.fromstring(line_chart(curves, x="step", y="loss")).findall("polyline")  # noqa: S314 - our own
    assert [len(line.get("points", "").split()) for line in lines] == [3, 3]
    assert lines[0].findtext("title") == "a < b & c"
    assert line_chart([Curve("lost", [(0, float("inf"))])], x="step", y="loss") == ""
    long = line_chart([Curve("long", [(i, i) for i in range(100_000)])], x="step", y="loss")
    assert len(long) < 20_000


def test_a_bar_is_cut_by_its_shares():
    parts = ET.fromstring(stacked_bar({"compute": 3.0, "dataWait": 1.0})).findall("rect")  # noqa: S314 - our own
    assert [float(part.get("width", 0)) for part in parts] == [480.0, 160.0]
    assert stacked_bar({}) == ""


# --- What the network gets wrong ---


class Group:
    """What two processes tell each other, as seen by one of them."""

    def __init__(self, *others: Any) -> None:
        self.others, self.own = others, None

    def gather(self, value: Any) -> list[Any]:
        self.own = value
        return [value, *self.others]

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def reviewer(*rows: tuple[int, int, int, float, float]) -> Reviewer:
    """rows: index, truth, found, loss, valid."""
    made = Reviewer()
    index, truth, found, loss, valid = zip(*rows, strict=True)
    verdicts = Verdicts(torch.tensor(loss), torch.tensor(truth), torch.tensor(found), torch.full((len(rows),), 0.5))
    made.add([SampleRef(i, 0) for i in index], verdicts, torch.tensor(valid))
    return made


def test_confusions_and_mistakes_of_all_processes_are_put_together():
    group = Group()
    other = reviewer((1, 0, 1, 9.0, 1.0), (3, 1, 1, 0.1, 1.0), (5, 1, 0, 99.0, 0.0))
    other.review("val", 1, ["a", "b"], group)
    review = reviewer((0, 0, 1, 2.0, 1.0), (2, 1, 0, 12.0, 1.0)).review("val", 1, ["a", "b"], Group(group.own))
    assert review.counts == {(0, 1): 2, (1, 1): 1, (1, 0): 1}, "a file that could not be read is not counted"
    assert [(m.index, m.truth, m.found) for m in review.mistakes] == [(2, 1, 0), (1, 0, 1), (0, 0, 1)]
    assert Reviewer().review("val", 1, [], Group()) is None, "a task without verdicts"


def test_of_many_classes_those_with_errors_are_shown():
    counts = {(i, i): 10 for i in range(100)} | {(7, 70): 3}
    html = page.render(history_of([]), Review("val", 1, [f"class {i}" for i in range(100)], counts))
    assert "The 2 classes with the most errors of 100" in html
    assert "<td>class 7</td><td>class 70</td>" in html


def test_names_that_look_like_markup_stay_names():
    html = page.render(history_of([]), Review("val", 1, ["<script>", "b"], {(0, 1): 1}))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


# --- A run of the real trainer ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run over coloured images, interrupted once."""
    folder = tmp_path_factory.mktemp("summary")
    config = vision_config(
        write_colors(folder / "images", 20),
        folder / "run",
        model={"architecture": "squeezenet1_1", "stem": "Standard"},
        batchSize=16,
        schedule={"epochs": 3, "warmupEpochs": "0"},
        summary={"tensorBoard": True},
        workers=0,
    ).model_copy(update={"price_per_hour": "36", "currency": "EUR"})
    asked = iter([False] * 4)
    with one_thread():
        left = train(
            config, make_task(config), Host(clock=Clock(now()), stop=lambda: not next(asked, False) and left_at(folder))
        )
        assert left.exit_code == ExitCode.ASKED_TO_LEAVE
        assert train(config, make_task(config), Host(clock=Clock(now()))).exit_code == ExitCode.DONE
    return folder / "run"


def left_at(folder: Path) -> bool:
    """Once an epoch was evaluated."""
    return any(line["event"] == "evaluation" for line in lines(folder / "run"))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_page_shows_the_run(run):
    html = (run / page.PAGE_FILE).read_text()
    assert "Classification with squeezenet1_1" in html
    assert "<td>Completed</td>" in html
    assert re.search(r"<th>cost</th><td>about \d+\.\d\d EUR</td>", html)
    assert "<h2>Starts</h2>" in html, "it was interrupted"
    assert html.count("<polyline") >= 4
    assert "http" not in html, "nothing comes from elsewhere"
    test = next(line for line in lines(run) if "test/top1" in line.get("metrics", {}))
    assert f"test/top1 {test['metrics']['test/top1']:.4f}" in html


def test_the_review_counts_every_image_of_the_test_split_and_shows_mistakes(run):
    review = Review.read(run)
    assert (review.split, sorted(review.classes)) == ("test", sorted(COLORS))
    assert sum(review.counts.values()) == 6  # a tenth of each class's 20
    wrong = sum(count for (truth, found), count in review.counts.items() if truth != found)
    assert len(review.mistakes) == wrong
    for mistake in review.mistakes:
        assert mistake.name.startswith(review.classes[mistake.truth])
        assert Image.open(io.BytesIO(base64.b64decode(mistake.picture))).size == (32, 32)


def test_tensorboard_reads_the_run_without_what_was_undone(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert {"train/loss", "val/top1", "learningRate"} <= set(board.Tags()["scalars"])
    read = [(scalar.step, pytest.approx(scalar.value)) for scalar in board.Scalars("val/top1")]
    assert read == read_history(run).curve("val/top1")


def test_the_model_card_says_what_the_model_is(run):
    text = (run / "model/README.md").read_text()
    _, metadata, body = text.split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "library_name": "darkroom",
        "pipeline_tag": "image-classification",
        "tags": ["squeezenet1_1"],
    }
    _, description = load_model(run / "model")
    for name, value in description["metrics"].items():
        assert f"| {name} | {value:.4f} |" in body
    assert "Images: 48 in `train`, 6 in `val`, 6 in `test`." in body
    assert "There was no test split" not in body
    assert "There was no test split" in model_card(description, metrics={}, recipe={}, images={"val": 6}, epoch=1)


def test_the_page_can_be_written_anew(run, capsys):
    (run / page.PAGE_FILE).unlink()
    assert page.main([str(run)]) == ExitCode.DONE
    assert (run / page.PAGE_FILE).exists()
    assert page.main([str(run / "model")]) == ExitCode.CONFIG_ERROR
    assert "metrics.jsonl is missing" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_stops_nobody(tmp_path, caplog):
    config = toy_config(tmp_path, faults={"samples": 96}, schedule={"epochs": 1, "warmupEpochs": "0"})
    (tmp_path / "run" / page.PAGE_FILE).mkdir(parents=True)
    assert train(config, Toy(config), Host(clock=Clock(now()))).exit_code == ExitCode.DONE
    assert "could not be written; training goes on without it" in caplog.text


def test_without_a_page_there_is_none(tmp_path):
    config = toy_config(
        tmp_path, faults={"samples": 96}, schedule={"epochs": 1, "warmupEpochs": "0"}, summary={"html": False}
    )
    train(config, Toy(config), Host(clock=Clock(now())))
    assert not (tmp_path / "run" / page.PAGE_FILE).exists()


# --- In a terminal ---

REPORT = """
from darkroom_trainer.report import Reporter, running

report = Reporter(running())
facts = {"epoch": 1, "epochs": 2, "steps": 20, "learningRate": 0.1}
for step in range(1, 21):
    report.progress(metrics={"train/loss": 1.0}, step=step, **facts)
report.say("epoch 1 done")
report.close()
"""


def test_in_a_terminal_there_is_a_bar_and_elsewhere_lines():
    environ = os.environ | {"PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image"}
    command = [sys.executable, "-c", REPORT]
    piped = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert piped.stdout.startswith("epoch 1/2  step 1/20  loss 1  lr 0.1\n")
    assert piped.stderr == ""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 100))
    with subprocess.Popen(command, env=environ, stdout=follower, stderr=follower):
        os.close(follower)
        shown = b""
        while part := read(leader):
            shown += part
    text = shown.decode()
    assert re.search(r"\d+/20 \[.*epoch 1/2  loss 1  lr 0.1", text)
    assert "step 1/20" not in text
    assert "epoch 1 done" in text


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other end is closed
        return b""
