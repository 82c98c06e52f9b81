"""Features of frozen stages: exact, computed once, found again, and never those of another network or other images."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom_api.report import ExitCode
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.corrupt import CorruptFiles
from darkroom_trainer.data.sampler import EvaluationBatches
from darkroom_trainer.encode import Encoder
from darkroom_trainer.errors import StorageError
from darkroom_trainer.features import Facts, FeatureFile
from darkroom_trainer.feed import Feed
from darkroom_trainer.host import Host
from darkroom_trainer.models import build_model
from darkroom_trainer.optim import Precision
from darkroom_trainer.parallel import Group
from darkroom_trainer.tasks.base import SampleRef
from darkroom_trainer.tasks.classification import Classification
from darkroom_trainer.train import train
from tests.trainer import members
from tests.trainer.images import vision_config, write_colors
from tests.trainer.processes import together, toy_config
from tests.trainer.test_resume import assert_same
from tests.trainer.test_transfer import WEIGHTS
from tests.trainer.toy_task import Toy

CACHED = {"model": WEIGHTS, "transfer": {"policy": "Head", "cacheFeatures": {}}, "schedule": {"epochs": 3}}
STILL = {"noise": 0.0}
"""The toy's noise is drawn per input: on features it would be another one."""


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("DARKROOM_CPU_LIMIT", "1")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_colors(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_file(
        build_model("resnet18", classes=5, image_size=32, stem="SmallImage", seed=9).state_dict(),
        folder / "w.safetensors",
    )
    return folder


def recipe(images: Path, run: Path, weights: Path, *, cache: Path | None = None, **fields):
    vision = {
        "model": {"architecture": "resnet18", "stem": "SmallImage", "weights": {"claim": "w", "path": "/w.safetensors"}},
        "augmentation": {"crop": "Center", "horizontalFlip": "0"},
        "optimizer": {"learningRate": "0.05"},
        "schedule": {"epochs": 3, "warmupEpochs": "0"},
        "batchSize": 8,
        **fields,
    }  # fmt: skip
    config = vision_config(images, run, weights=weights, **vision)
    return config.model_copy(update={"cache_dir": str(cache) if cache else None})


class Counted(Classification):
    """Counts the images that go through the whole of the network's inputs."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self.pixels = 0

    def inputs(self, batch):
        if not batch.encoded:
            self.pixels += len(batch.images)
        return super().inputs(batch)


def run(config, **facts):
    task = Counted(config)
    message = train(config, task, Host(clock=Clock(now()), **facts))
    return task, message


# --- The promise ---


@pytest.mark.parametrize(
    "policy", [{"policy": "Head"}, {"policy": "LastStages", "stages": 1}], ids=["head", "last stage"]
)
def test_with_one_view_the_weights_are_those_of_training_without_the_cache(tmp_path, images, weights, policy):
    plain, _ = run(recipe(images, tmp_path / "plain", weights, transfer=policy))
    cached, message = run(recipe(images, tmp_path / "cached", weights, transfer=policy | {"cacheFeatures": {}}))
    assert_same(members.newest(tmp_path / "plain"), members.newest(tmp_path / "cached"), within=1e-5)
    assert plain.pixels == 3 * 24 + 3 * 3 + 3  # epochs of train and val, and test
    assert cached.pixels == 24 + 3 + 3
    assert message.saved_seconds is not None


def test_views_are_computed_once_each_and_take_turns(tmp_path, images, weights):
    transfer = {"policy": "Head", "cacheFeatures": {"views": 2}}
    config = recipe(images, tmp_path, weights, transfer=transfer, augmentation={}, schedule={"epochs": 5})
    task, _ = run(config)
    assert task.pixels == 2 * 24 + 3 + 3


def test_head_then_all_ends_with_pixels(tmp_path, images, weights):
    transfer = {"policy": "HeadThenAll", "phaseEpochs": 2, "cacheFeatures": {}}
    task, _ = run(recipe(images, tmp_path, weights, transfer=transfer))
    # features of train and val; a last, filled-up step is 24 images too; two evaluations on features, one on pixels
    assert task.pixels == 24 + 3 + 24 + 3 + 3


def test_several_processes_share_the_work_and_get_the_same(tmp_path):
    results = {}
    for world in (1, 2, 3):
        config = toy_config(tmp_path / str(world), faults={"samples": 100} | STILL, microBatchSize=16, **CACHED)
        together(world, members.train_member, config)
        results[world] = members.newest(tmp_path / f"{world}/run")
    for world in (2, 3):
        assert_same(results[1], results[world])


# --- Kept, found again, and removed ---


def test_another_run_finds_them_in_a_shared_folder(tmp_path, images, weights):
    transfer = {"policy": "Head", "cacheFeatures": {"claim": "features"}}
    first, _ = run(recipe(images, tmp_path / "first", weights, cache=tmp_path / "shared", transfer=transfer))
    second, message = run(
        recipe(
            images, tmp_path / "second", weights, cache=tmp_path / "shared", transfer=transfer,
            optimizer={"learningRate": "0.01"},
        )
    )  # fmt: skip
    assert (first.pixels, second.pixels) == (24 + 3 + 3, 3)
    assert message.saved_seconds > 0
    assert (tmp_path / "shared").exists()


def test_those_in_the_runs_own_folder_go_with_its_end(tmp_path, images, weights):
    config = recipe(images, tmp_path, weights, transfer={"policy": "Head", "cacheFeatures": {}})
    _, left = run(
        config,
        stop=lambda: (tmp_path / "features").exists() and len(list((tmp_path / "features").rglob("val.json"))) > 0,
    )
    assert left.exit_code == ExitCode.ASKED_TO_LEAVE
    assert (tmp_path / "features").exists()
    again, _ = run(config)
    assert again.pixels == 3
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"normalization": {"mean": ["0", "0", "0"]}}, id="normalisation"),
        pytest.param({"imageSize": 48}, id="size"),
        pytest.param({"augmentation": {"crop": "Center", "horizontalFlip": "0.5"}}, id="augmentation"),
        pytest.param({"transfer": {"policy": "LastStages", "cacheFeatures": {}}}, id="depth"),
        pytest.param({"transfer": {"policy": "Head", "cacheFeatures": {"views": 2}}}, id="views"),
        pytest.param({"precision": "BFloat16"}, id="precision"),
    ],
)
def test_the_key_depends_on(tmp_path, images, weights, change):
    base = {"transfer": {"policy": "Head", "cacheFeatures": {}}}
    keys = {key_of(recipe(images, tmp_path, weights, **(base | some))) for some in ({}, change)}
    assert len(keys) == 2


def test_the_key_depends_on_weights_and_files_and_on_nothing_else(tmp_path, weights):
    images = write_colors(tmp_path / "images")
    transfer = {"policy": "Head", "cacheFeatures": {}}
    first = key_of(recipe(images, tmp_path, weights, transfer=transfer))
    assert key_of(recipe(images, tmp_path / "b", weights, transfer=transfer, optimizer={"learningRate": "1"})) == first
    (tmp_path / "w").mkdir()
    state = build_model("resnet18", classes=5, image_size=32, stem="SmallImage", seed=8).state_dict()
    save_file(state, tmp_path / "w/w.safetensors")
    assert key_of(recipe(images, tmp_path, tmp_path / "w", transfer=transfer)) != first
    file = next((images / "red").iterdir())
    os.utime(file, (1, 1))
    assert key_of(recipe(images, tmp_path, weights, transfer=transfer)) != first


def key_of(config) -> str:
    task = Classification(config)
    model, transfer = task.build_model(), config.vision.transfer
    stages = task.stages(model)
    first = len(stages) - 1 - (transfer.policy == "LastStages")
    return encoder(task, stages, first, config).key("train", transfer.cache_features.views)


def encoder(task, stages, first, config) -> Encoder:
    precision = Precision.of(config.vision, torch.device("cpu"))
    corrupt = CorruptFiles({"train": 24}, limit=1, group=Group(), say=lambda _: None)
    return Encoder(Feed(task, Group(), 0, precision, torch.contiguous_format, corrupt), stages, first, batch=8)


# --- Interrupted, damaged, full ---


def test_told_to_leave_while_it_computes_them_it_goes_on_from_there(tmp_path):
    faults = {"samples": 200, "sleep": 0.002} | STILL
    config = toy_config(tmp_path, faults=faults, microBatchSize=8, **CACHED)
    together(1, members.train_member, config)
    whole = members.newest(tmp_path / "run")
    other = toy_config(tmp_path / "cut", faults=faults, microBatchSize=8, **CACHED)
    left = any_row(tmp_path / "cut/run/features")
    ended = train(other, Toy(other), Host(clock=Clock(now()), stop=left))
    assert (ended.exit_code, ended.step) == (ExitCode.ASKED_TO_LEAVE, 0)
    facts = json.loads(next((tmp_path / "cut/run/features").rglob("train.json")).read_text())["features"]
    assert 0 < facts["done"] < 200
    ended = train(other, Toy(other), Host(clock=Clock(now())))
    assert ended.exit_code == ExitCode.DONE
    assert_same(whole, members.newest(tmp_path / "cut/run"))


def any_row(folder: Path):
    """To leave once the file of rows is there."""
    return lambda: any(folder.rglob("train.bin"))


def test_unreadable_images_are_counted_and_weigh_nothing(tmp_path, weights):
    images = write_colors(tmp_path / "images")
    for file in sorted((images / "red").iterdir())[:2]:
        file.write_bytes(b"no image")
    transfer = {"policy": "Head", "cacheFeatures": {}}
    data = {"claim": "images", "maxCorruptFraction": "0.5"}
    for name, policy in (("plain", {"policy": "Head"}), ("cached", transfer)):
        run(recipe(images, tmp_path / name, weights, transfer=policy, data=data))
    assert_same(members.newest(tmp_path / "plain"), members.newest(tmp_path / "cached"), within=1e-5)


def facts(done: int = 4, **changes) -> Facts:
    content = {
        "shape": [4, 2],
        "dtype": "float32",
        "done": done,
        "seconds": 2.0,
        "targets": [0, 1],
        "corrupt": {"1": "b.png"},
    }
    return Facts(**content | changes)


def test_rows_come_back_with_their_view_target_and_name(tmp_path):
    file = FeatureFile(tmp_path / "key", "train")
    file.reserve((4, 2), torch.float32).copy_(torch.arange(8.0).view(4, 2))
    file.note(facts())
    features = file.open()
    batch = features.read([SampleRef(1, 0), SampleRef(0, 3)])
    assert batch.images.tolist() == [[2, 3], [4, 5]]
    assert (batch.targets.tolist(), batch.valid.tolist(), batch.corrupt) == ([1, 0], [0, 1], ["b.png"])
    assert (len(features), features.seconds_per_row, batch.encoded) == (2, 0.5, True)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: (f / "train.bin").write_bytes(b"short"), id="rows cut short"),
        pytest.param(lambda f: (f / "train.json").write_text("{"), id="no JSON"),
        pytest.param(lambda f: (f / "train.json").write_text('{"format": 99, "features": {}}'), id="another format"),
        pytest.param(lambda f: (f / "train.bin").unlink(), id="rows gone"),
    ],
)
def test_what_cannot_be_used_counts_as_not_there(tmp_path, damage):
    file = FeatureFile(tmp_path, "train")
    file.reserve((4, 2), torch.float32)
    file.note(facts())
    assert file.facts() == facts()
    damage(tmp_path)
    assert file.facts() is None
    with pytest.raises(StorageError, match=r"train\.bin went away"):
        file.open()


def test_a_full_volume_is_told_before_a_row_is_written(tmp_path):
    """On a file system of 1 MiB; a write to a mapped file that finds no room would kill the process."""
    volume = tmp_path / "volume"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", volume], check=True)
    try:
        with pytest.raises(StorageError, match=r"0\.01 GB of features do not fit into .*no space left on its volume"):
            FeatureFile(volume / "key", "train").reserve((1_000_000, 2), torch.float32)
        assert not list((volume / "key").iterdir())
    finally:
        subprocess.run(["umount", volume], check=True)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 7, 24])
def test_every_draw_is_made_once_wherever_the_work_began(world, start):
    ranks = [EvaluationBatches(10, batch=4, rank=rank, world=world, views=3, start=start) for rank in range(world)]
    made = [ref.epoch * 10 + ref.index for draws in ranks for round_ in range(len(draws)) for ref in draws[round_]]
    assert sorted(made) == list(range(start, 30))
    for round_ in range(ranks[0].rounds):  # what is done after a round is a beginning of the whole
        firsts = [ref.epoch * 10 + ref.index for draws in ranks if round_ < len(draws) for ref in draws[round_]]
        assert min(firsts) == start + round_ * 4 * world
