"""Growing images and augmentation, and the ends that come before the schedule's."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from darkroom_api.report import ExitCode, Reason
from darkroom_api.v1alpha1.progression import EarlyStop
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.data.resize import resized
from darkroom_trainer.ema import Ema
from darkroom_trainer.errors import ConfigError, DivergenceError
from darkroom_trainer.host import Host
from darkroom_trainer.schedule import ImageSize, is_plateau, strength
from darkroom_trainer.state import Progress
from darkroom_trainer.stops import check_loss
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import Batch, SampleRef
from darkroom_trainer.train import train
from tests.trainer.images import vision_config, write_colors
from tests.trainer.members import newest
from tests.trainer.processes import toy_config
from tests.trainer.toy_task import Toy


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("DARKROOM_CPU_LIMIT", "1")


@pytest.mark.parametrize(
    ("progress", "size"),
    [(0, 128), (0.2, 128), (0.27, 160), (0.53, 160), (0.54, 192), (0.79, 192), (0.8, None), (1, None)],
)
def test_images_grow_in_steps_until_they_have_their_size(progress, size):
    assert ImageSize(full=224, start=128, until=0.8, step=32).at(progress) == size


def test_a_size_that_the_network_cannot_take_is_refused(tmp_path):
    config = vision_config(
        tmp_path, tmp_path, model={"architecture": "vgg11"}, imageSize=64, schedule={"resolution": {"start": 16}}
    )
    with pytest.raises(ConfigError, match=r"vision.schedule.resolution: vgg11 takes images of 32 pixels and more"):
        ImageSize.of(config.vision)


def test_a_batch_is_resized_with_its_map_of_classes():
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    images[..., 4:] = 200
    batch = Batch(images, (images[:, 0] > 0).to(torch.uint8), torch.ones(1), [])
    small = resized(batch, 4)
    assert small.images.shape == (1, 3, 4, 4)
    assert small.images[0, 0, 0].tolist() == pytest.approx([0, 0, 200, 200], abs=26)
    assert small.targets.dtype == torch.uint8
    assert small.targets[0, 0].tolist() == [0, 0, 1, 1]
    encoded = dataclasses.replace(batch, encoded=True)
    assert resized(encoded, 4) is encoded


def test_a_run_with_growing_images_is_resumed_to_the_bit(tmp_path):
    write_colors(tmp_path / "data", 5)
    fields = {
        "model": {"architecture": "squeezenet1_1"},
        "imageSize": 48,
        "data": {"claim": "x", "split": {"train": "0.8", "val": "0.2", "test": "0"}},
        "batchSize": 4,
        "optimizer": {"learningRate": "0.001"},
        "schedule": {"epochs": 2, "resolution": {"start": 32, "step": 8, "until": "0.7"}},
        "augmentation": {"rampUp": "0.5", "erasing": "1", "randAugment": {}},
    }

    def run(into: str, **facts) -> list[int]:
        config = vision_config(tmp_path / "data", tmp_path / into, **fields)
        task, sizes = make_task(config), []
        loss = task.loss

        def watched(model, batch, *, generator):
            sizes.append(batch.images.shape[-1])
            return loss(model, batch, generator=generator)

        task.loss = watched
        train(config, task, Host(clock=Clock(now()), **facts))
        return sizes

    assert run("whole") == [32, 32, 32, 40, 40, 48]
    assert run("parts", stop=lambda: True) == [32]
    assert run("parts") == [32, 32, 40, 40, 48]
    found = newest(tmp_path / "parts")
    assert all(torch.equal(found[name], tensor) for name, tensor in newest(tmp_path / "whole").items())


@pytest.mark.parametrize(("ramp_up", "progress", "expected"), [(0, 0, 1), (0.5, 0, 0), (0.5, 0.25, 0.5), (0.5, 0.5, 1)])
def test_augmentation_grows(ramp_up, progress, expected):
    assert strength(ramp_up, progress) == expected


def test_without_strength_an_image_stays_whole(tmp_path):
    write_colors(tmp_path, 10)
    config = vision_config(
        tmp_path, tmp_path, augmentation={"horizontalFlip": "0", "erasing": "1", "randAugment": {"magnitude": 30}}
    )
    images = make_task(config).splits()["train"]
    full, none = (np.stack([images[SampleRef(i, 0, s)].pixels for i in range(8)]).astype(float) for s in (1.0, 0.0))
    own = np.stack([images[SampleRef(i, 1, 0.0)].pixels for i in range(8)])
    assert np.abs(full - none).mean() > 20
    assert np.abs(own - none).mean() < 60


# --- Ends ---


@pytest.mark.parametrize(
    ("values", "fields", "less", "expected"),
    [
        pytest.param([0.5, 0.6], {"patience": 2}, False, False, id="too few epochs"),
        pytest.param([0.5, 0.6, 0.6, 0.59], {"patience": 2}, False, True, id="no better for two"),
        pytest.param([0.5, 0.6, 0.6, 0.61], {"patience": 2}, False, False, id="better in the last"),
        pytest.param([0.5, 0.6, 0.6, 0.61], {"patience": 2, "minDelta": "0.02"}, False, True, id="hardly better"),
        pytest.param([0.5, 0.6, 0.6], {"patience": 2}, True, True, id="a loss that does not fall"),
        pytest.param([0.5, 0.6, 0.4], {"patience": 2}, True, False, id="a loss that falls"),
    ],
)
def test_is_plateau(values, fields, less, expected):
    stop = EarlyStop.model_validate(fields, strict=False)
    assert is_plateau(values, stop, less_is_better=less) is expected


def test_a_run_ends_on_its_plateau(tmp_path):
    schedule = {"epochs": 9, "earlyStop": {"patience": 2}}
    config = toy_config(tmp_path, faults={"samples": 96}, schedule=schedule, optimizer={"learningRate": "0"})
    message = train(config, Toy(config), Host(clock=Clock(now())))
    assert (message.reason, message.exit_code, message.epoch) == (Reason.PLATEAU, ExitCode.DONE, 3)
    assert message.model is not None
    again = train(config, Toy(config), Host(clock=Clock(now())))
    assert (again.reason, again.step) == (Reason.PLATEAU, message.step)


def test_a_metric_that_is_not_there_is_named(tmp_path):
    schedule = {"epochs": 2, "earlyStop": {"patience": 1, "metric": "miou"}}
    config = toy_config(tmp_path, faults={"samples": 96}, schedule=schedule)
    with pytest.raises(ConfigError, match=r"vision.schedule.earlyStop.metric: no 'miou' in val; there are .*top1"):
        train(config, Toy(config), Host(clock=Clock(now())))


def test_a_loss_that_explodes_names_step_and_learning_rate():
    progress = Progress(step=10)
    check_loss(progress, 2.3, steps=10, learning_rate=0.5)
    progress.step = 20
    check_loss(progress, 40.0, steps=10, learning_rate=0.5)
    with pytest.raises(DivergenceError, match=r"grew from 2.3 to 50 in steps 11 to 20, at learning rate 0.5: lower"):
        check_loss(progress, 50.0, steps=10, learning_rate=0.5)
    with pytest.raises(DivergenceError, match="between steps 11 and 20"):
        check_loss(progress, math.nan, steps=10, learning_rate=0.5)


def test_an_average_now_and_then_forgets_as_much(tmp_path):
    """Weights that move steadily: after 400 steps, the average of every step and that of every fourth agree."""
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    often, seldom = Ema(net, decay=0.98, batch=1024), Ema(net, decay=0.98, batch=1024, every=4)
    for step in range(400):
        torch.nn.init.constant_(net.weight, step / 400)
        for ema in (often, seldom):
            if ema.is_due(step):
                ema.update(ema.model.state_dict(), net.state_dict())
    assert seldom.updates == 100
    assert float(seldom.model.weight) == pytest.approx(float(often.model.weight), abs=0.01)
