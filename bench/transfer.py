"""What kept features are worth: wall time of ten epochs of the head, computed each time over computed once.

A ResNet-18 with random weights (they cost the same) at 96 pixels on 256 of scikit-learn's digits, one thread, each way in
turns. `first`: the run computes the features itself. `found`: another run has left them. `everything`: all layers learn.
"""

import os
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from safetensors.torch import save_file

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.host import Host
from darkroom_trainer.models import build_model
from darkroom_trainer.tasks.classification import Classification
from darkroom_trainer.train import train
from scripts.digits import write_digits

ROUNDS, EPOCHS = 3, 10
SPLIT = {"train": "0.142", "val": "0.03", "test": "0"}
WAYS: dict[str, dict[str, Any] | None] = {
    "uncached": {"policy": "Head"},
    "first": {"policy": "Head", "cacheFeatures": {}},
    "found": {"policy": "Head", "cacheFeatures": {"claim": "features"}},
    "everything": None,
}


def run() -> dict[str, Any]:
    """Ratios of uncached to the other ways, mean and spread; above 1, the other way is faster."""
    os.environ["DARKROOM_CPU_LIMIT"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "digits")
        network = build_model("resnet18", classes=5, image_size=96)
        save_file(network.state_dict(), folder / "weights.safetensors")
        _train(folder, "found", 0)  # leaves its features
        seconds = [{way: _train(folder, way, round_) for way in WAYS} for round_ in range(1, ROUNDS + 1)]
    findings: dict[str, Any] = {"rounds": ROUNDS, "epochs": EPOCHS}
    for way in ("first", "found", "everything"):
        ratios = [each["uncached"] / each[way] for each in seconds]
        findings[f"uncached_over_{way}"] = f"{mean(ratios):.2f} +- {stdev(ratios):.2f}"
    return findings


def _train(folder: Path, way: str, round_: int) -> float:
    """Seconds of steps and evaluations, the computing of features included; saving and starting are the same for all."""
    vision = {
        "data": {"claim": "digits", "split": SPLIT},
        "model": {"architecture": "resnet18", "weights": {"claim": "weights", "path": "/weights.safetensors"}},
        "imageSize": 96,
        "batchSize": 32,
        "augmentation": {"crop": "Center", "horizontalFlip": "0"},
        "schedule": {"epochs": EPOCHS, "warmupEpochs": "0"},
        **({"transfer": WAYS[way]} if WAYS[way] else {}),
    }
    content = {
        "vision": vision,
        "dataDir": str(folder / "digits"),
        "weightsDir": str(folder),
        "runDir": str(folder / f"{way}-{round_}"),
        **({"cacheDir": str(folder / "features")} if way == "found" else {}),
    }
    config = TrainerConfig.model_validate(content, strict=False)
    message = train(config, Classification(config), Host(clock=Clock(now())))
    return sum(message.time[bucket] for bucket in ("dataWait", "compute", "evaluation"))
