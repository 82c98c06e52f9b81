"""What a schedule that is fitted to the time is worth: top-1 on digits against a longer one that is cut off, in the same time.

scikit-learn's digits, a small network (tests/trainer/toy_task.py), steps slowed down to 0.05 s. The cut run plans a cosine over
160 steps and is told to stop after 40; the fitted one has the same plan, linear, and the seconds that the cut run took.
"""

import json
import os
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from darkroom_api.report import Action
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.clock import Clock, now
from darkroom_trainer.host import Host
from darkroom_trainer.train import train
from tests.trainer.toy_task import Toy

SEEDS, PLANNED, CUT = 5, 160, 40
BATCH = 45  # 160 steps are six epochs of 1,200 images
STEP_SECONDS = 0.05


RATES = ("0.05", "0.15")
"""Peak learning rates: the higher it is, the more a run loses that is cut off at it."""


def run() -> dict[str, Any]:
    """Top-1 on the test images in percent, mean and standard deviation over seeds, and what the fitted runs gain."""
    os.environ["DARKROOM_CPU_LIMIT"] = "1"
    findings = {f"top1_percent_at_learning_rate_{rate}": _compare(rate) for rate in RATES}
    return {"seeds": SEEDS, "planned_steps": PLANNED, "cut_at_step": CUT, **findings}


def _compare(rate: str) -> dict[str, str]:
    cut, fitted = [], []
    for seed in range(SEEDS):
        value, seconds = _train(seed, rate, "Cosine")
        cut.append(value)
        value, took = _train(seed, rate, "Linear", budget=seconds)
        if took > seconds:
            raise AssertionError(f"{took:.1f} s in a budget of {seconds:.1f} s")
        fitted.append(value)
    gains = [b - a for a, b in zip(cut, fitted, strict=True)]
    columns = {"cut": cut, "fitted": fitted, "gain": gains}
    return {name: f"{mean(values):.1f} +- {stdev(values):.1f}" for name, values in columns.items()}


def _train(seed: int, rate: str, decay: str, *, budget: float | None = None) -> tuple[float, float]:
    """Percent right, and seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "toy.json").write_text(json.dumps({"step_sleep": STEP_SECONDS}))
        vision = {
            "data": {"claim": "digits"},
            "model": {"architecture": "resnet18"},
            "batchSize": BATCH,
            "optimizer": {"learningRate": rate},
            "schedule": {"epochs": PLANNED * BATCH // 1200, "warmupEpochs": "0.3", "decay": decay},
            "seed": seed,
        }
        config = TrainerConfig.model_validate(
            {"vision": vision, "dataDir": name, "runDir": f"{name}/run"}, strict=False
        )
        task, began = Toy(config), now()
        host = Host(clock=Clock(began))
        if budget is None:
            told: list[Action] = []  # a command counts once
            host.stop = lambda: task.steps >= CUT and not told
            host.leaving = lambda: told.append(Action.STOP) or told[0]
        else:
            host.seconds_left = lambda: began + budget - now()
        message = train(config, task, host)
        return 100 * next(float(m.value) for m in message.metrics if m.name == "test/top1"), now() - began
