"""What transfer learning is for, with real ImageNet weights and real images: a hundred labels must do."""

import pytest

from darkroom_trainer.clock import Clock, now
from darkroom_trainer.host import Host
from darkroom_trainer.train import train
from scripts.digits import write_digits
from tests.trainer.images import vision_config
from tests.trainer.lite_task import Lite

HUNDRED = {"train": "0.056", "val": "0.056", "test": "0.2"}
PRETRAINED = {"architecture": "efficientnet_b0", "weights": {"claim": "package", "path": "/lite0.pth"}}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


class Counting(Lite):
    """Counts the images that go through the network, backbone and all."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self.images = 0

    def inputs(self, batch):
        self.images += 0 if batch.encoded else len(batch.images)
        return super().inputs(batch)


def trained(folder, run, *, epochs: int, **fields) -> tuple[float, int]:
    """Top-1 on the test images, and how many images went through the whole network for it."""
    recipe = {
        "data": {"claim": "digits", "split": HUNDRED},
        "imageSize": 96,
        "batchSize": 20,
        "augmentation": {"crop": "Center", "horizontalFlip": "0"},
        "optimizer": {"name": "AdamW", "learningRate": "0.003", "weightDecay": "0.01"},
        "schedule": {"epochs": epochs, "warmupEpochs": "0"},
    }
    config = vision_config(folder, run, **recipe | fields)
    task = Counting(config)
    message = train(config, task, Host(clock=Clock(now())))
    return float(next(metric.value for metric in message.metrics if metric.name == "test/top1")), task.images


def test_with_a_hundred_labels_a_pretrained_network_beats_training_from_scratch_by_50_points(digits, tmp_path):
    """At less than its price: forty epochs of the head on kept features against three of the whole network."""
    transfer = {"policy": "Head", "cacheFeatures": {}}
    probe, images = trained(digits, tmp_path / "probe", epochs=40, model=PRETRAINED, transfer=transfer)
    scratch, more = trained(digits, tmp_path / "scratch", epochs=3, model={"architecture": "efficientnet_b0"})
    assert images < more
    assert probe > scratch + 0.5
    assert probe > 0.7
