"""Fractals: classes that can be told apart, from numbers alone; and a head for them that the exported model lacks."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from darkroom_trainer.export import load_model
from darkroom_trainer.synthetic.fractal import System, filled, render_fractal, system_of
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import Batch, SampleRef
from tests.trainer import members
from tests.trainer.images import vision_config, write_colors
from tests.trainer.processes import together

FRACTALS = {"source": "Fractals", "schedule": "Pretrain", "fractals": {"classes": 5}}


def images_member(numbers):
    return [render_fractal(7, size=32, seed=1, number=number)[0].tobytes() for number in numbers]


def test_an_image_follows_from_seed_and_number_in_any_process():
    here = images_member([0, 5, 10**7])
    assert together(1, images_member, [10**7, 0, 5]) == [[here[2], here[0], here[1]]]
    assert render_fractal(7, size=32, seed=2, number=0)[0].tobytes() != here[0]
    assert [render_fractal(7, size=16, seed=1, number=n)[1] for n in range(9)] == [0, 1, 2, 3, 4, 5, 6, 0, 1]


def test_the_sierpinski_triangle_is_drawn():
    """Three maps that halve: the attractor has no point in the middle triangle."""
    half = np.repeat(np.eye(2)[None] / 2, 3, axis=0)
    points, maps = System.of(half, np.array([[0, 0], [0.5, 0], [0, 0.5]])).points(np.random.default_rng(0))
    assert np.bincount(maps).min() > 0.9 * len(maps) / 3
    assert 0.75**5 < filled(points) < 0.5  # cells at its rim count as well
    middle = (points > 0.27).all(axis=1) & (points.sum(axis=1) > 0.54) & (points < 0.48).all(axis=1)
    assert middle.mean() < 0.02


def test_systems_contract_and_cover_something():
    for label in range(40):
        system = system_of(0, label)
        assert np.linalg.norm(system.matrices, ord=2, axis=(1, 2)).max() <= 1
        assert filled(system.points(np.random.default_rng(3))[0]) > 0.08
    images = np.stack([render_fractal(40, size=48, seed=0, number=n)[0] for n in range(80)]).astype(float)
    assert np.isfinite(images).all() and images.std(axis=(1, 2, 3)).min() > 8


@pytest.fixture
def task(tmp_path):
    write_colors(tmp_path / "data", 10)
    return make_task(vision_config(tmp_path / "data", tmp_path / "run", synthetic=FRACTALS))


def test_each_sample_is_judged_among_its_own_classes(task):
    logits = torch.randn(4, 3 + 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([2, 0, 3, 7])
    batch = Batch(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), targets, torch.ones(4), [])
    loss = task.loss(lambda _: logits, batch, generator=torch.Generator())
    real = functional.cross_entropy(logits[:2, :3], targets[:2], reduction="sum")
    fractal = functional.cross_entropy(logits[2:, 3:], targets[2:] - 3, reduction="sum")
    torch.testing.assert_close(loss, real + fractal)
    totals = task.new_totals(torch.device("cpu"))
    sure = torch.cat([functional.one_hot(torch.tensor([2, 0]), 3).float(), torch.full((2, 5), 99.0)], dim=1)
    task.evaluate(lambda _: sure, Batch(batch.images[:2], targets[:2], torch.ones(2), []), totals)
    assert task.metrics(totals)["top1"] == 1


def test_labels_of_fractals_follow_the_data_sets(task):
    train = task.splits()["train"]
    labels = [train[SampleRef(number, 0, synthetic=True)].label for number in range(6)]
    assert labels == [3, 4, 5, 6, 7, 3]


def test_the_exported_head_has_the_data_sets_classes_alone(task):
    model = task.build_model().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wide, own = model(images), task.exported(model).eval()(images)
    assert wide.shape == (2, 8)
    torch.testing.assert_close(own, wide[:, :3])


def test_fractals_first_then_the_images(tmp_path):
    """Continued on another number of processes in the middle; the exported model loads."""
    write_colors(tmp_path / "data", 10)
    fields = {"synthetic": FRACTALS, "batchSize": 8, "microBatchSize": 4, "schedule": {"epochs": 3}, "workers": 0}
    fields |= {"optimizer": {"learningRate": "0.02"}}
    config = vision_config(tmp_path / "data", tmp_path / "run", **fields)
    ended = together(2, members.task_member, config, 3)
    assert {end["reason"] for end in ended} == {"AskedToLeave"}
    (end,) = together(1, members.task_member, config)
    assert end["reason"] == "Completed"
    model, description = load_model(tmp_path / "run/model")
    assert description["classes"] == ["blue", "green", "red"]
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
