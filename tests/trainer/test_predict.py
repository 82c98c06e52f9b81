"""The command that applies an exported model: it must see images exactly as evaluation did."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from darkroom_trainer.export import export_model
from darkroom_trainer.predict import Predictor, main
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import SampleRef
from tests.trainer.images import vision_config, write_colors


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colors(tmp_path / "data", suffix=".jpg")


@pytest.fixture
def task(data, tmp_path):
    normalization = {"mean": ["0.5", "0.4", "0.3"], "std": ["0.2", "0.3", "0.4"]}
    return make_task(vision_config(data, tmp_path / "run", normalization=normalization))


@pytest.fixture
def model(task, tmp_path) -> Path:
    export_model(task.build_model(), tmp_path / "run/model", description=task.describe(), metrics={"top1": 0.5})
    return tmp_path / "run/model"


def test_probabilities_are_those_of_evaluation(task, model, data):
    val = task.splits()["val"]
    batch = task.collate([val[SampleRef(index, 0)] for index in range(len(val))])
    predictor = Predictor(model, device=torch.device("cpu"))
    names = [data / val.name(index) for index in range(len(val))]
    answers = list(predictor.predict(names, top=3, batch_size=2))

    seen = []

    class Recorder(torch.nn.Module):
        def forward(self, images):
            seen.append(images)
            return torch.zeros(len(images), 3)

    task.evaluate(Recorder(), batch, task.new_totals(torch.device("cpu")))
    expected = predictor._model(seen[0].contiguous()).softmax(dim=1)
    for answer, row in zip(answers, expected, strict=True):
        probabilities = dict(answer.answer.classes)
        assert probabilities.keys() == {"blue", "green", "red"}
        torch.testing.assert_close(
            torch.tensor([probabilities[name] for name in ("blue", "green", "red")]), row.detach()
        )


def test_table(model, data, capsys):
    assert main([str(model), str(data / "red/000.jpg"), "--top", "2"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split("\t") == ["file", "class", "probability"]
    rows = [line.split("\t") for line in (first, second)]
    assert [row[0] for row in rows] == [str(data / "red/000.jpg")] * 2
    assert float(rows[0][2]) >= float(rows[1][2])


def test_folder_as_json(model, data, capsys):
    assert main([str(model / "model.safetensors"), str(data), "--json", "--batch-size", "7"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == sorted(str(path) for path in data.rglob("*.jpg"))
    assert all(0 < line["predictions"][0]["probability"] <= 1 for line in lines)


def test_a_damaged_image_does_not_stop_the_others(model, data, capsys):
    (data / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    files = [str(data / name) for name in ("red/000.jpg", "broken.jpg", "absent.png", "blue/000.jpg")]
    assert main([str(model), *files]) == 65
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 3
    assert "broken.jpg: " in output.err
    assert "absent.png: " in output.err


def test_a_missing_model_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "absent"), "x.png"]) == 78
    assert "absent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "code", "message"),
    [
        ("--device", "gpu", 2, "'gpu' is no device: cpu, cuda or cuda:1"),
        ("--device", "cuda:99", 78, "--device cuda:99: "),
        ("--top", "many", 2, "'many' is not a positive number"),
    ],
)
def test_options_that_do_not_fit_are_named(model, data, capsys, option, value, code, message):
    try:
        ended = main([str(model), str(data), option, value])
    except SystemExit as exit_:
        ended = exit_.code
    assert ended == code
    assert message in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(model, data, monkeypatch, capsys):
    """As `| head`: the pipe is closed before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main([str(model), str(data)]) == 0
    assert capsys.readouterr().err == ""


def test_a_folder_without_images(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(model), str(tmp_path / "empty")]) == 65
    assert "no PNG or JPEG files" in capsys.readouterr().err
