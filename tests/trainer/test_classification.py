"""The classification task against a folder of coloured images: losses, totals, metrics, and that it learns."""

from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom_trainer.errors import ConfigError, DataError
from darkroom_trainer.export import export_model, load_model
from darkroom_trainer.tasks import make_task
from darkroom_trainer.tasks.base import Batch, SampleRef
from tests.trainer.images import one_thread, vision_config, write_class, write_colors

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colors(tmp_path / "data")


def task_for(folder: Path, **vision):
    return make_task(vision_config(folder, folder.parent / "run", **vision))


def batch_of(task, split: str = "train", epoch: int = 0) -> Batch:
    images = task.splits()[split]
    return task.collate([images[SampleRef(index, epoch)] for index in range(len(images))])


class Fixed(nn.Module):
    """A network that answers what it was told."""

    def __init__(self, output):
        super().__init__()
        self.output = output
        self.seen = None

    def forward(self, images):
        self.seen = images
        return self.output


def test_learns_three_colors_and_exports_what_it_learned(data, tmp_path):
    task = task_for(data, model={"architecture": "resnet18"})
    model, batch = task.build_model(), batch_of(task)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for step in range(8):
        optimizer.zero_grad()
        loss = task.loss(model, batch, generator=torch.Generator().manual_seed(step)) / batch.valid.sum()
        loss.backward()
        optimizer.step()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # statistics of the last weights, not an average over the first ones
    with torch.no_grad():
        task.loss(model, batch, generator=torch.Generator())
    totals = task.new_totals(CPU)
    task.evaluate(model.eval(), batch_of(task, "val"), totals)
    assert task.metrics(totals)["top1"] == 1.0

    export_model(model, tmp_path / "run/model", description=task.describe(), metrics=task.metrics(totals))
    exported, description = load_model(tmp_path / "run/model")
    again = task.new_totals(CPU)
    task.evaluate(exported, batch_of(task, "val"), again)
    assert torch.equal(again, totals)
    assert description["classes"] == ["blue", "green", "red"]


def test_loss_is_summed_over_valid_samples(data):
    task = task_for(data)
    batch = batch_of(task)
    model = Fixed(torch.zeros(len(batch.targets), 3))
    batch.valid[:4] = 0
    loss = task.loss(model, batch, generator=torch.Generator())
    assert loss == pytest.approx(torch.log(torch.tensor(3.0)) * (len(batch.targets) - 4))


def test_images_reach_the_network_normalised(data):
    task = task_for(data, normalization={"mean": ["0.5", "0.25", "0"], "std": ["0.5", "1", "2"]})
    batch = batch_of(task)
    model = Fixed(torch.zeros(len(batch.targets), 3))
    task.loss(model, batch, generator=torch.Generator())
    pixels = batch.images.float() / 255
    expected = torch.stack([(pixels[:, 0] - 0.5) / 0.5, pixels[:, 1] - 0.25, pixels[:, 2] / 2], dim=1)
    torch.testing.assert_close(model.seen, expected)


def test_label_smoothing_is_torchs(data):
    task = task_for(data, schedule={"labelSmoothing": "0.1"})
    batch = batch_of(task)
    logits = torch.randn(len(batch.targets), 3, generator=torch.Generator().manual_seed(0))
    expected = nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")(logits, batch.targets)
    torch.testing.assert_close(task.loss(Fixed(logits), batch, generator=torch.Generator()), expected)


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        pytest.param("logits aux_logits", [1, 0.4], id="inception v3"),
        pytest.param("logits aux_logits2 aux_logits1", [1, 0.3, 0.3], id="googlenet"),
    ],
)
def test_auxiliary_heads_add_their_share(data, names, weights):
    task = task_for(data)
    batch = batch_of(task)
    outputs = torch.randn(len(weights), len(batch.targets), 3, generator=torch.Generator().manual_seed(0))
    outputs.requires_grad_()
    model = Fixed(namedtuple("Output", names)(*outputs))
    parts = [
        weight * nn.CrossEntropyLoss(reduction="sum")(out, batch.targets)
        for weight, out in zip(weights, outputs, strict=True)
    ]
    torch.testing.assert_close(task.loss(model, batch, generator=torch.Generator()), sum(parts))


def test_auxiliary_heads_of_frozen_stages_teach_nobody(data):
    task = task_for(data)
    batch = batch_of(task)
    logits, frozen = torch.randn(2, len(batch.targets), 3, generator=torch.Generator().manual_seed(0))
    model = Fixed(namedtuple("Output", "logits aux_logits")(logits, frozen))
    expected = nn.CrossEntropyLoss(reduction="sum")(logits, batch.targets)
    torch.testing.assert_close(task.loss(model, batch, generator=torch.Generator()), expected)


def test_metrics_of_known_answers(data):
    task = task_for(data)
    batch = Batch(
        images=torch.zeros(5, 3, 32, 32, dtype=torch.uint8),
        targets=torch.tensor([0, 0, 0, 1, 2]),
        valid=torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]),
        corrupt=["red/broken.png"],
    )
    answers = torch.tensor([0, 0, 1, 1, 2])
    logits = nn.functional.one_hot(answers, 3).float()
    totals = task.new_totals(CPU)
    task.evaluate(Fixed(logits), batch, totals)
    metrics = task.metrics(totals)
    assert metrics["top1"] == 3 / 4
    assert metrics["macroTop1"] == pytest.approx((2 / 3 + 1) / 2), "the class without a valid image is left out"
    losses = nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    assert metrics["loss"] == pytest.approx(losses[:4].mean().item())
    assert "top5" not in metrics, "with five classes and fewer it says nothing"


def test_totals_of_parts_sum_to_the_totals_of_the_whole(data):
    task = task_for(data)
    model, batch = task.build_model().eval(), batch_of(task)
    whole, parts = task.new_totals(CPU), [task.new_totals(CPU) for _ in range(3)]
    task.evaluate(model, batch, whole)
    for rank, totals in enumerate(parts):
        share = Batch(batch.images[rank::3], batch.targets[rank::3], batch.valid[rank::3], [])
        task.evaluate(model, share, totals)
    torch.testing.assert_close(sum(parts), whole)


def test_top5_beyond_five_classes(tmp_path):
    for index in range(6):
        write_class(tmp_path / f"class{index}", (40 * index, 0, 0), 3)
    task = task_for(tmp_path, data={"claim": "images", "split": {"train": "0.5", "val": "0.5", "test": "0"}})
    logits = torch.arange(6, 0, -1).float().repeat(6, 1)  # class 0 first, class 5 last
    batch = Batch(torch.zeros(6, 3, 32, 32), torch.arange(6), torch.ones(6), [])
    totals = task.new_totals(CPU)
    task.evaluate(Fixed(logits), batch, totals)
    metrics = task.metrics(totals)
    assert metrics["top1"] == pytest.approx(1 / 6)
    assert metrics["top5"] == pytest.approx(5 / 6)


def test_metrics_of_nothing_are_zeros(data):
    task = task_for(data)
    assert task.metrics(task.new_totals(CPU)) == {"top1": 0.0, "loss": 0.0, "macroTop1": 0.0}


def test_same_seed_same_network(data):
    task = task_for(data, seed=3)
    first, second, other = task.build_model(), task.build_model(), task_for(data, seed=4).build_model()
    assert torch.equal(first.fc.weight, second.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)


def test_fingerprint_follows_names_and_classes(data):
    before = task_for(data).fingerprint()
    assert task_for(data, seed=9).fingerprint() == before, "the recipe may change, the data may not"
    (data / "red" / "000.png").rename(data / "red" / "renamed.png")
    assert task_for(data).fingerprint() != before


def test_a_missing_folder_is_a_data_error_that_names_it(data):
    with pytest.raises(DataError, match="nowhere"):
        task_for(data, data={"claim": "images", "path": "/nowhere"}).splits()


def test_weights_of_another_class_count_replace_all_but_the_head(data, tmp_path):
    donor = task_for(data, seed=5)
    model = donor.build_model()
    description = donor.describe() | {"classes": ["a", "b", "c"]}
    export_model(model, tmp_path / "weights", description=description, metrics={})
    for extra in ("white", "yellow"):
        (data / extra).mkdir()
        for source in (data / "red").iterdir():
            (data / extra / source.name).write_bytes(source.read_bytes())
    weights = {"claim": "weights", "path": "/weights/model.safetensors"}
    config = vision_config(
        data, tmp_path / "run", weights=tmp_path,
        model={"architecture": "resnet18", "stem": "SmallImage", "weights": weights},
    )  # fmt: skip
    started = make_task(config).build_model()
    assert torch.equal(started.conv1.weight, model.conv1.weight)
    assert started.fc.weight.shape == (5, 512)


def test_a_missing_weights_file_is_a_config_error_that_names_it(data, tmp_path):
    model = {"architecture": "resnet18", "weights": {"claim": "weights", "path": "/absent.pth"}}
    config = vision_config(data, tmp_path / "run", weights=tmp_path, model=model)
    with pytest.raises(ConfigError, match=r"absent\.pth"):
        make_task(config).build_model()


def test_weights_without_their_folder_are_a_config_error(data, tmp_path):
    model = {"architecture": "resnet18", "weights": {"claim": "weights", "path": "/w.pth"}}
    with pytest.raises(ConfigError, match="weightsDir"):
        make_task(vision_config(data, tmp_path / "run", model=model)).build_model()
