"""The loop in this process, and in groups: what it writes, what it refuses, what it counts."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom_api.report import TIME_BUCKETS, ExitCode, Reason
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.errors import ConfigError, DataError, DivergenceError
from darkroom_trainer.host import Host
from darkroom_trainer.models import build_model
from darkroom_trainer.train import Run, train
from tests.trainer import members
from tests.trainer.images import vision_config, write_colors
from tests.trainer.processes import start_node, together, toy_config
from tests.trainer.toy_task import Toy

SHORT = {"schedule": {"epochs": 2, "warmupEpochs": "0"}}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Several threads that wait for each other on busy cores make small layers twenty times slower."""
    monkeypatch.setenv("DARKROOM_CPU_LIMIT", "1")


def host(**facts) -> Host:
    return Host(clock=Clock(now()), **facts)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_metrics_a_model_and_a_message(tmp_path, capsys):
    config = toy_config(tmp_path, faults={"samples": 240}, ema={"decay": "0.5"}, **SHORT)
    message = train(config, Toy(config), host())
    assert (message.reason, message.exit_code) == (Reason.COMPLETED, ExitCode.DONE)
    assert (message.step, message.steps, message.epoch, message.epochs) == (10, 10, 2, 2)
    names = [metric.name for metric in message.metrics]
    assert names[0] == "test/top1"
    assert {"test/loss", "val/top1", "train/loss"} <= set(names)
    assert message.best.metric == "val/top1"
    assert (tmp_path / "run" / message.model.path).exists()
    assert (tmp_path / "run" / message.checkpoint.path / "manifest.json").exists()

    told = lines(tmp_path)
    evaluations = [line for line in told if line["event"] == "evaluation"]
    assert [line["epoch"] for line in evaluations[:2]] == [1, 2]
    assert [next(iter(line["metrics"])) for line in evaluations] == ["val/top1", "val/top1", "test/top1"]
    last = [line for line in told if line["event"] == "progress"][-1]
    assert last["step"] == 10
    assert {"learningRate", "imagesPerSecond", "etaSeconds", "time"} <= last.keys()
    output = capsys.readouterr().out
    assert "epoch 2/2  step 10/10  loss " in output
    assert re.search(r"img/s  eta \d+ s\n", output)


def test_a_resumed_run_says_so_and_names_its_checkpoint(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 240}, **SHORT)
    first = train(config, Toy(config), host(stop=lambda: True))
    assert (first.reason, first.step, first.checkpoint_step) == (Reason.ASKED_TO_LEAVE, 1, 1)
    again = train(config, Toy(config), host(stop=lambda: True))
    assert (again.resumed_step, again.step) == (1, 2)
    assert [line["event"] for line in lines(tmp_path)].count("resumed") == 1


def test_told_to_leave_during_an_evaluation_it_evaluates_after_resuming(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 96}, **SHORT)
    evaluating = {"now": False}

    class Watched(Toy):
        def evaluate(self, model, batch, totals):
            evaluating["now"] = True
            super().evaluate(model, batch, totals)

    left = train(config, Watched(config), host(stop=lambda: evaluating["now"]))
    assert (left.reason, left.step, left.epoch, left.best) == (Reason.ASKED_TO_LEAVE, 2, 1, None)
    done = train(config, Toy(config), host())
    whole = toy_config(tmp_path / "whole", faults={"samples": 96}, **SHORT)
    assert done.best == train(whole, Toy(whole), host()).best


def test_told_to_leave_during_the_last_measurement_it_finishes_later(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 96}, **SHORT)
    asked = {"now": False}

    class Watched(Toy):
        def evaluate(self, model, batch, totals):
            asked["now"] = Path(config.run_dir, "checkpoints/step-00000004").exists()
            super().evaluate(model, batch, totals)

    left = train(config, Watched(config), host(stop=lambda: asked["now"]))
    assert (left.exit_code, left.step, left.model) == (75, 4, None)
    done = train(config, Toy(config), host())
    assert (done.exit_code, done.resumed_step) == (0, 4)
    assert done.model is not None
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").glob("step-*")) == ["step-00000004"]


def test_checkpoints_come_by_the_clock(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 240, "step_sleep": 0.3}, every=1, **SHORT)
    train(config, Toy(config), host())
    saved = [line["step"] for line in lines(tmp_path) if line["event"] == "saved"]
    assert len(saved) >= 2
    assert saved[-1] == 10
    assert len(list((tmp_path / "run/checkpoints").glob("step-*"))) == 2  # keep


# --- What is refused ---


def test_divergence_names_the_step_and_what_to_do(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 240, "scale": float("inf")}, **SHORT)
    with pytest.raises(DivergenceError, match=r"between steps 1 and 1, at learning rate 0.05: lower vision.optimizer"):
        train(config, Toy(config), host())
    assert not list((tmp_path / "run/checkpoints").glob("step-*"))


def test_processes_that_see_different_files_are_refused(tmp_path):
    errors = together(2, members.split_view_member, toy_config(tmp_path))
    assert [type(error) for error in errors] == [DataError, DataError]
    assert "the processes see different files" in str(errors[1])


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 96}, **SHORT)
    train(config, Toy(config), host(stop=lambda: True))
    other = toy_config(tmp_path, faults={"samples": 96}, seed=1, **SHORT)
    with pytest.raises(ConfigError, match=r"vision\.seed was 0, is 1"):
        train(other, Toy(other), host())
    toy_config(tmp_path, faults={"samples": 96, "fingerprint": "other"}, **SHORT)
    with pytest.raises(DataError, match="other data"):
        train(config, Toy(config), host())


def test_a_folder_that_cannot_be_written_is_refused_before_the_data_are_read(tmp_path):
    config = toy_config(tmp_path)
    (tmp_path / "run").write_text("no folder")
    task = Toy(config)
    task.splits = None
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        train(config, task, host())


# --- Unreadable images ---


def test_few_unreadable_images_are_skipped_and_counted_once(tmp_path, capsys):
    faults = {"samples": 240, "corrupt": 2}
    config = toy_config(tmp_path, faults=faults, data={"claim": "images", "maxCorruptFraction": "0.01"}, **SHORT)
    ends = together(2, members.train_member, config)
    assert {end["reason"] for end in ends} == {"Completed"}
    known = members.Checkpoints(tmp_path / "run/checkpoints", keep=1).newest().counters()["progress"]["corrupt"]
    assert known == {"train": ["train/0000.png", "train/0001.png"]}


def test_too_many_unreadable_images_end_every_process_with_their_names(tmp_path):
    faults = {"samples": 240, "corrupt": 30}
    config = toy_config(tmp_path, faults=faults, **SHORT)
    errors = together(2, members.train_member, config)
    assert [type(error) for error in errors] == [DataError, DataError]
    assert str(errors[0]) == str(errors[1])
    assert "of 240 images of train cannot be read" in str(errors[0])
    assert str(errors[0]).count(".png") <= 5


# --- Time ---


def test_a_slow_data_set_shows_as_data_wait_and_the_buckets_sum(tmp_path):
    config = toy_config(tmp_path, faults={"samples": 48, "sleep": 0.004}, batchSize=24, **SHORT)
    began = now()
    message = train(config, Toy(config), host())
    wall = now() - began
    assert set(message.time) == set(TIME_BUCKETS)
    assert sum(message.time.values()) == pytest.approx(wall, rel=0.01)
    assert message.time["dataWait"] >= 96 * 0.004
    assert message.time["evaluation"] >= (2 * 300 + 297) * 0.004  # `val` twice, `test` once


# --- The real task, with loader processes ---


def test_the_built_in_task_trains_with_loader_processes_and_leaves_when_asked(tmp_path):
    """A pod of 2 processes with a loader each, from weights for other classes; what they left out is said once."""
    data = write_colors(tmp_path / "data", count=20)
    save_file(build_model("squeezenet1_1", classes=7, image_size=32).state_dict(), tmp_path / "old.safetensors")
    model = {"architecture": "squeezenet1_1", "weights": {"claim": "w", "path": "/old.safetensors"}}
    recipe = {"model": model, "batchSize": 12, "microBatchSize": 6, "workers": 1, "schedule": {"epochs": 9999}}
    config = vision_config(data, tmp_path / "run", weights=tmp_path, **recipe)
    node = start_node(config, tmp_path, processes=2, task=None)
    node.wait_for("  step ")
    node.terminate()
    node.wait()
    assert (node.code, node.message.reason) == (75, "AskedToLeave"), node.output
    assert node.output.count("left out: classifier.1.bias, classifier.1.weight") == 1
    assert node.message.checkpoint_step == node.message.step > 0
    assert "DataLoader worker" not in node.output


# --- Number formats ---


@pytest.mark.parametrize("precision", ["BFloat16", "Float16"])
def test_mixed_precision_learns_and_resumes(tmp_path, precision):
    config = toy_config(tmp_path, faults={"samples": 240}, precision=precision, **SHORT)
    train(config, Toy(config), host(stop=lambda: True))
    message = train(config, Toy(config), host())
    assert message.reason == Reason.COMPLETED
    assert float(message.best.value) > 0.3


def test_clipping_bounds_the_step(tmp_path):
    fields = {"optimizer": {"learningRate": "1", "momentum": "0", "weightDecay": "0", "clipNorm": "0.001"}}
    config = toy_config(tmp_path, schedule={"epochs": 1, "warmupEpochs": "0"}, **fields)
    run = Run(config, Toy(config), host())
    run.enter_phase()
    before = torch.cat([p.detach().flatten().clone() for p in run.learner.model.parameters()])
    run.train_step()
    after = torch.cat([p.detach().flatten() for p in run.learner.model.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.001, rel=0.01)


def test_frozen_batchnorm_is_left_alone(tmp_path):
    config = toy_config(tmp_path, microBatchSize=12)
    run = Run(config, Toy(config), host())
    run.enter_phase()
    frozen, live = run.learner.model.features[1].eval(), run.learner.model.features[4]
    before = {name: tensor.clone() for name, tensor in frozen.named_buffers()}
    run.train_step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.named_buffers())
    assert int(live.num_batches_tracked) == 1
