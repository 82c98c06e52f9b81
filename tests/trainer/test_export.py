"""The two files of an exported model, and what is noticed when they do not belong together."""

import json
from hashlib import sha256

import pytest
import safetensors.torch
import torch

from darkroom_trainer.errors import ConfigError, StorageError
from darkroom_trainer.export import export_model, load_model
from darkroom_trainer.models import build_model

DESCRIPTION = {
    "task": "Classification",
    "architecture": "squeezenet1_1",
    "stem": "Standard",
    "imageSize": 32,
    "classes": ["cat", "café"],
    "preprocessing": {"resize": 32, "crop": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


def small_model(seed: int = 0):
    return build_model("squeezenet1_1", classes=2, image_size=32, seed=seed)


@pytest.fixture
def exported(tmp_path):
    folder = tmp_path / "model"
    export_model(small_model(), folder, description=DESCRIPTION, metrics={"top1": 0.75})
    return folder


def test_artifact_names_the_file_relative_to_the_run(tmp_path):
    artifact = export_model(small_model(), tmp_path / "model", description=DESCRIPTION, metrics={})
    assert artifact.path == "model/model.safetensors"
    assert artifact.sha256 == sha256((tmp_path / artifact.path).read_bytes()).hexdigest()
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_round_trip(exported):
    model, description = load_model(exported)
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(images), small_model().eval()(images))
    assert description["classes"] == ["cat", "café"]
    assert description["metrics"] == {"top1": 0.75}
    assert description["format"] == 1


def test_the_file_of_weights_leads_to_its_folder(exported):
    assert load_model(exported / "model.safetensors")[1]["architecture"] == "squeezenet1_1"


def test_weights_are_plain_contiguous_tensors(tmp_path):
    model = small_model().to(memory_format=torch.channels_last)
    export_model(model, tmp_path / "model", description=DESCRIPTION, metrics={})
    tensors = safetensors.torch.load_file(tmp_path / "model/model.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[key], tensor) for key, tensor in model.state_dict().items())


def test_a_later_export_replaces_the_earlier_one(exported):
    export_model(small_model(seed=1), exported, description=DESCRIPTION, metrics={"top1": 0.9})
    assert load_model(exported)[1]["metrics"] == {"top1": 0.9}


def test_a_failed_export_leaves_the_earlier_one_whole(exported, monkeypatch):
    before = load_model(exported)[1]
    monkeypatch.setattr("safetensors.torch.save_file", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StorageError, match=r"could not be written to .*/model: disk full"):
        export_model(small_model(seed=1), exported, description=DESCRIPTION, metrics={})
    assert load_model(exported)[1] == before
    assert len(list(exported.iterdir())) == 2


def test_weights_of_another_export_are_refused(exported, tmp_path):
    export_model(small_model(seed=1), tmp_path / "other", description=DESCRIPTION, metrics={})
    (tmp_path / "other/model.safetensors").rename(exported / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model\.safetensors has SHA-256 [0-9a-f]{64}, but .*model\.json says"):
        load_model(exported)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda _: "{", r"model\.json is not JSON", id="cut off"),
        pytest.param(lambda d: json.dumps(d | {"format": 2}), "format 1", id="of a later format"),
        pytest.param(lambda d: json.dumps(d | {"architecture": "resnet0"}), "resnet0", id="unknown network"),
        pytest.param(lambda _: json.dumps({"format": 1}), "lacks task", id="without a task"),
        pytest.param(lambda d: json.dumps(d | {"task": "Pose"}), "no trainer for task 'Pose'", id="unknown task"),
        pytest.param(
            lambda _: json.dumps({"format": 1, "task": "Classification"}), "lacks architecture", id="incomplete"
        ),
        pytest.param(lambda d: json.dumps(d | {"classes": ["one"]}), "do not fit", id="other class count"),
        pytest.param(
            lambda d: json.dumps(d | {"preprocessing": {"resize": 32, "crop": 32}}),
            r"lacks preprocessing\.mean, preprocessing\.std",
            id="incomplete preprocessing",
        ),
        pytest.param(lambda d: json.dumps(d | {"weights": "x"}), r"lacks weights\.sha256", id="no digest"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(exported, change, message):
    path = exported / "model.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(ConfigError, match=message):
        load_model(exported)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(exported, name):
    (exported / name).unlink()
    with pytest.raises(ConfigError, match=name):
        load_model(exported)
