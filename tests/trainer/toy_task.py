"""A small real task for the loop: scikit-learn's 8x8 digits and a network with BatchNorm and Dropout.

`python -m darkroom_trainer train CONFIG --task tests.trainer.toy_task:make_task`; the folder `data_dir` may hold a
toy.json with faults to inject: see `Toy.__init__`.
"""

import gzip
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.stages import Stage
from darkroom_trainer.tasks.base import Batch, SampleRef

_SPLITS = {"train": (0, 1200), "val": (1200, 1500), "test": (1500, 1797)}


def read_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The 1,797 images, float32 [n, 3, 8, 8], and their classes; read beside scikit-learn, whose import takes seconds."""
    package = Path(find_spec("sklearn").origin).parent
    with gzip.open(package / "datasets/data/digits.csv.gz") as file:
        rows = torch.from_numpy(np.loadtxt(file, delimiter=","))
    images = rows[:, :-1].float().view(-1, 1, 8, 8).expand(-1, 3, -1, -1) / 16 - 0.5
    return images, rows[:, -1].long()


class Digits:
    """A part of the digits; the training part is shifted by up to one pixel, keyed by (epoch, index)."""

    def __init__(
        self, images: torch.Tensor, targets: torch.Tensor, *, faults: Mapping[str, Any], augment: bool
    ) -> None:
        self.images, self.targets, self.faults, self.augment = images, targets, faults, augment

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, ref: SampleRef) -> tuple[torch.Tensor, int, int, bool]:
        time.sleep(self.faults.get("sleep", 0.0))
        if self.augment and ref.index == self.faults.get("stuck_at"):
            Path(self.faults["fifo"]).read_bytes()  # as a file on a server that does not answer
        image = self.images[ref.index]
        if self.augment:
            image = torch.roll(image, (ref.epoch * 7 + ref.index) % 3 - 1, dims=-1)
        corrupt = self.augment and ref.index < self.faults.get("corrupt", 0)
        return image, int(self.targets[ref.index]), ref.index, corrupt


class Net(nn.Module):
    """About 20,000 weights, 1 ms a batch."""

    def __init__(self, *, dropout: float, norm: bool) -> None:
        super().__init__()
        normalize = nn.BatchNorm2d if norm else nn.Identity
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), normalize(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2, bias=False), normalize(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False), normalize(32), nn.ReLU(),
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(images).flatten(1)))


class Toy:
    """Faults: "sleep" seconds per sample, "step_sleep" per micro-batch, or "slow" in rank 1;
    "corrupt": the first n training files;

    "stuck_at": the training image whose file, a "fifo", is never read to its end;
    "do": raise, exit (with "code"), kill, term, segv, receive (what nobody sends) at micro-batch "at_step" of "rank".
    """

    best_metric = "top1"

    def __init__(self, config: TrainerConfig) -> None:
        faults = Path(config.data_dir) / "toy.json"
        self.faults: dict[str, Any] = json.loads(faults.read_text()) if faults.exists() else {}
        self.seed, self.steps = config.vision.seed, 0

    def splits(self) -> Mapping[str, Digits]:
        time.sleep(self.faults.get("slow_start", 0.0))
        images, targets = read_digits()
        train = min(1200, self.faults.get("samples", 1200))
        parts = _SPLITS | {"train": (0, train)}
        return {
            name: Digits(images[a:b], targets[a:b], faults=self.faults, augment=name == "train")
            for name, (a, b) in parts.items()
        }

    def collate(self, items: Sequence[tuple[torch.Tensor, int, int, bool]]) -> Batch:
        images, targets, indices, corrupt = zip(*items, strict=True)
        return Batch(
            torch.stack(images),
            torch.tensor(targets),
            torch.tensor([0.0 if c else 1.0 for c in corrupt]),
            [f"train/{index:04}.png" for index, c in zip(indices, corrupt, strict=True) if c],
        )

    def build_model(self) -> nn.Module:
        torch.manual_seed(self.seed)
        return Net(dropout=self.faults.get("dropout", 0.1), norm=self.faults.get("norm", True))

    def exported(self, model: nn.Module) -> nn.Module:
        return model

    def stages(self, model: nn.Module) -> list[Stage]:
        first, second = model.features[:6], model.features[6:]
        body = Stage("stage1", (second, partial(torch.flatten, start_dim=1)), (second,))
        return [Stage("stem", (first,), (first,)), body, Stage("head", (model.dropout, model.head), (model.head,))]

    def inputs(self, batch: Batch) -> torch.Tensor:
        return batch.images

    def loss(self, model: nn.Module, batch: Batch, *, generator: torch.Generator) -> torch.Tensor:
        self._misbehave()
        time.sleep(self.faults.get("slow", 0.0) if int(os.environ.get("RANK", "0")) == 1 else 0.0)
        noise = torch.randn(batch.images.shape, generator=generator).to(batch.images.device)
        images = batch.images + self.faults.get("noise", 0.05) * noise
        losses = functional.cross_entropy(model(images), batch.targets, reduction="none")
        return (losses * batch.valid).sum() * self.faults.get("scale", 1.0)

    def _misbehave(self) -> None:
        self.steps += 1
        time.sleep(self.faults.get("step_sleep", 0.0))
        if self.steps != self.faults.get("at_step") or int(os.environ.get("RANK", "0")) != self.faults.get("rank", 0):
            return
        match self.faults["do"]:
            case "raise":
                raise KeyError("no such thing\nsecond line")
            case "exit":
                sys.exit(self.faults["code"])
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)
            case "receive":
                dist.recv(torch.zeros(1), src=0)
            case "segv":
                os.kill(os.getpid(), signal.SIGSEGV)

    def new_totals(self, device: torch.device) -> torch.Tensor:
        return torch.zeros(3, dtype=torch.float64, device=device)

    def evaluate(self, model: nn.Module, batch: Batch, totals: torch.Tensor) -> None:
        logits = model(batch.images)
        right = (logits.argmax(1) == batch.targets).double()
        losses = functional.cross_entropy(logits.double(), batch.targets, reduction="none")
        totals += torch.stack([(losses * batch.valid).sum(), (right * batch.valid).sum(), batch.valid.double().sum()])

    def merge(self, totals: torch.Tensor, group: Any) -> torch.Tensor:
        return group.all_reduce(totals)

    def metrics(self, totals: torch.Tensor) -> dict[str, float]:
        loss, right, count = totals.tolist()
        return {"top1": right / count, "loss": loss / count, "count": count}

    def fingerprint(self) -> str:
        return sha256(f"digits {self.faults.get('fingerprint', '')}".encode()).hexdigest()

    def pixels_fingerprint(self, split: str) -> str:
        return sha256(f"digits {split} {self.faults}".encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {"task": "Toy"}


def make_task(config: TrainerConfig) -> Toy:
    return Toy(config)
