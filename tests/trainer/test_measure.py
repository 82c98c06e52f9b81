"""What the recipe leaves to the data: image size, normalisation, stem, and weights that may not be there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom_trainer.errors import ConfigError, DataError
from darkroom_trainer.measure import Measurements, fitting_size, measure, settled, with_measurements
from darkroom_trainer.models import build_model
from darkroom_trainer.tasks import make_task
from tests.trainer.images import one_thread, vision_config, write_colors
from tests.trainer.processes import start_node

ALL = ["ImageSize", "Normalization", "Stem"]


def recipe(folder: Path = Path("data"), **fields):
    return vision_config(folder, folder.parent / "run", **{"measure": ALL, "imageSize": 224, **fields}).vision


@pytest.mark.parametrize(
    ("architecture", "side", "most", "size"),
    [
        pytest.param("resnet18", 8, 224, 32, id="digits"),
        pytest.param("resnet18", 33, 224, 64, id="detail is kept"),
        pytest.param("resnet18", 64, 224, 64, id="as it is"),
        pytest.param("resnet18", 1000, 224, 224, id="large images"),
        pytest.param("resnet18", 1000, 170, 160, id="the largest step"),
        pytest.param("alexnet", 8, 224, 64, id="what the network needs"),
        pytest.param("inception_v3", 8, 80, 80, id="less than the next step"),
        pytest.param("vit_h_14", 100, 448, 224, id="a patch of another size"),
        pytest.param("maxvit_t", 8, 224, 224, id="one size alone"),
    ],
)
def test_sizes(architecture, side, most, size):
    vision = recipe(model={"architecture": architecture}, imageSize=most)
    assert fitting_size(vision, side) == size


GREY = Measurements(20, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
WEIGHTS = {"claim": "w", "path": "/w.pt"}


@pytest.mark.parametrize(
    ("fields", "size", "mean", "stem"),
    [
        pytest.param({}, 32, "0.5000", "SmallImage", id="everything"),
        pytest.param({"measure": ["ImageSize"]}, 32, "0.485", "Standard", id="the size alone"),
        pytest.param({"measure": ["Stem"]}, 224, "0.485", "Standard", id="a large size was asked for"),
        pytest.param(
            {"model": {"architecture": "resnet18", "weights": WEIGHTS}},
            32,
            "0.485",
            "Standard",
            id="weights know theirs",
        ),
        pytest.param({"model": {"architecture": "vgg11"}}, 32, "0.5000", "Standard", id="no ResNet"),
    ],
)
def test_what_is_settled(fields, size, mean, stem):
    vision = with_measurements(recipe(**{"model": {"architecture": "resnet18"}} | fields), GREY)
    assert (vision.image_size, vision.normalization.mean[0], vision.model.stem) == (size, mean, stem)
    assert vision.measure is None


def test_enlarged_images_keep_the_cheap_stem():
    """Digits of 8 px at 32: what the standard stem divides by four is what was there."""
    vision = with_measurements(recipe(model={"architecture": "resnet18"}), replace(GREY, side=8))
    assert (vision.image_size, vision.model.stem) == (32, "Standard")


def test_measurements_of_real_files(tmp_path):
    """40 x 32 pixels in three colours; a file that is no image is passed over."""
    data = write_colors(tmp_path / "data")
    (data / "red/999.png").write_bytes(b"no image")
    listing = make_task(vision_config(data, tmp_path / "run")).folder.splits["train"]
    found = measure(listing)
    assert found.side == 32
    assert found.mean == pytest.approx((93 / 255, 97 / 255, 103 / 255), abs=0.03)
    assert all(0.2 < value < 0.4 for value in found.std)
    assert measure(listing) == found


def test_one_colour_can_be_divided_by(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (16, 16)).save(tmp_path / "data" / name / f"{number}.png")
    vision = settled(vision_config(tmp_path / "data", tmp_path / "run", measure=ALL)).vision
    assert (vision.normalization.mean[0], vision.normalization.std[0]) == ("0.0000", "0.0100")


def test_nothing_to_measure(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "data" / name / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the training images can be read"):
        settled(vision_config(tmp_path / "data", tmp_path / "run", measure=ALL))


# --- Weights ---


def pretrained(**weights):
    model = {"architecture": "resnet18", "weights": {"claim": "hub", "name": "Default", **weights}}
    return {"model": model, "transfer": {"policy": "Head"}}


def test_default_weights_that_are_there(tmp_path):
    """The file has torchvision's name; its digest is not the name's, and that is no reason to do without it."""
    data = write_colors(tmp_path / "data")
    file = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    torch.save(build_model("resnet18", classes=3, image_size=32).state_dict(), file)
    config = vision_config(data, tmp_path / "run", weights=tmp_path, **pretrained(missing="Scratch"))
    assert settled(config) is config
    with pytest.raises(ConfigError, match="it is damaged"), one_thread():
        make_task(config).build_model()


def test_default_weights_that_are_not_there(tmp_path):
    data = write_colors(tmp_path / "data")
    config = vision_config(data, tmp_path / "run", weights=tmp_path, **pretrained(missing="Scratch"))
    vision = settled(config).vision
    assert (vision.model.weights, vision.transfer) == (None, None)
    strict = vision_config(data, tmp_path / "run", weights=tmp_path, **pretrained())
    with pytest.raises(ConfigError, match=r"Default is resnet18-f37072fd\.pth, which is in none of"), one_thread():
        make_task(settled(strict)).build_model()


def test_a_run_that_measures(tmp_path):
    """Measuring again comes to the same recipe, or the run could not go on from its checkpoint."""
    data = write_colors(tmp_path / "data")
    fields = {"model": {"architecture": "squeezenet1_1"}, "schedule": {"epochs": 1}, "workers": 0, "batchSize": 8}
    config = vision_config(data, tmp_path / "run", measure=ALL, imageSize=224, **fields)
    assert settled(config) == settled(config)
    node = start_node(config, tmp_path, task=None).wait()
    assert node.code == 0, node.output
    described = json.loads((tmp_path / "run/model/model.json").read_text())
    assert described["imageSize"] == 32
    assert described["preprocessing"]["mean"] == pytest.approx([0.36, 0.38, 0.40], abs=0.03)
