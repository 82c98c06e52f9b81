"""What synthetic images are worth where real ones are few: test accuracy with and without them, at equal numbers of steps.

`digits`: about 108 of scikit-learn's images of digits, with and without fractals in the first half of the run.
`shapes`: 24 images of four shapes, rendered with more noise and blur than the scenes that stand beside them; those are the
same generator's, so this is the best case and no photograph. A ResNet-18 from scratch, AdamW, one thread.
"""

import os
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.host import Host
from darkroom_trainer.synthetic.scene import Recipe
from darkroom_trainer.synthetic.write import write_class_folder
from darkroom_trainer.tasks import make_task
from darkroom_trainer.train import train
from scripts.digits import write_digits

SEEDS = 4
SHAPES = Recipe(
    size=(32, 32),
    classes=("circle", "cross", "star", "triangle"),
    objects=(1, 1),
    radius=(0.25, 0.45),
    noise=(10, 30),
    blur=(0.5, 1.5),
)
WAYS: dict[str, dict[str, Any]] = {
    "digits": {
        "real": {},
        "fractals": {"source": "Fractals", "schedule": "Pretrain", "ratio": "0.5"},
    },
    "shapes": {
        "real": {},
        "mixed": {"source": "Scenes", "ratio": "0.5"},
        "anneal": {"source": "Scenes", "ratio": "0.5", "schedule": "Anneal"},
        "pretrain": {"source": "Scenes", "ratio": "0.5", "schedule": "Pretrain"},
    },
}
DATA: dict[str, dict[str, Any]] = {
    "digits": {"split": {"train": "0.06", "val": "0.05", "test": "0.5"}},
    "shapes": {},
}
EPOCHS = {"digits": 40, "shapes": 160}


def run() -> dict[str, Any]:
    """Test accuracy by data set and way: mean and spread over the seeds of the training."""
    os.environ["DARKROOM_CPU_LIMIT"] = "1"
    findings: dict[str, Any] = {"seeds": SEEDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "digits")
        write_class_folder(folder / "shapes", SHAPES, {"train": 24, "val": 24, "test": 400}, seed=1)
        for data, ways in WAYS.items():
            for way, synthetic in ways.items():
                found = [_accuracy(folder, data, way, synthetic, seed) for seed in range(SEEDS)]
                findings[f"{data}_{way}_top1"] = f"{mean(found):.3f} +- {stdev(found):.3f}"
    return findings


def _accuracy(folder: Path, data: str, way: str, synthetic: dict[str, Any], seed: int) -> float:
    vision = {
        "data": {"claim": data, **DATA[data]},
        "model": {"architecture": "resnet18"},
        "imageSize": 32,
        "batchSize": 16,
        "augmentation": {"crop": "RandomPad", "horizontalFlip": "0"},
        "optimizer": {"name": "AdamW", "learningRate": "0.002", "weightDecay": "0.01"},
        "schedule": {"epochs": EPOCHS[data]},
        "seed": seed,
        **({"synthetic": synthetic} if synthetic else {}),
    }
    run_dir = folder / f"{data}-{way}-{seed}"
    config = TrainerConfig.model_validate(
        {"vision": vision, "dataDir": str(folder / data), "runDir": str(run_dir)}, strict=False
    )
    message = train(config, make_task(config), Host(clock=Clock(now())))
    return next(float(metric.value) for metric in message.metrics if metric.name == "test/top1")
