"""What a run is at one instant, as a checkpoint keeps it; and what must be the same for another to continue it."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.checkpoint import Parcel
from darkroom_trainer.ema import Ema
from darkroom_trainer.errors import ConfigError, DataError
from darkroom_trainer.layout import Layout

_MAY_CHANGE = {
    "workers",
    "deterministic",
    "precision",
    "memoryFormat",
    "microBatchSize",  # the recorded one is kept
    "parallelism",
    "data.claim",
    "data.path",
    "data.maxCorruptFraction",
    "model.weights.claim",
    "model.weights.path",
    "model.weights.name",
    "transfer.cacheFeatures.claim",
    "summary",
}
"""Fields of `vision` that do not change what is learned, or that are found to be the same by what they point to."""


@dataclass
class Best:
    """The best epoch so far; metrics of the split `val`, by names with the prefix."""

    value: float
    epoch: int
    step: int
    metrics: dict[str, float]


@dataclass
class Progress:
    """Everything that is counted. worlds: from which step on how many processes took part."""

    step: int = 0
    evaluated: int = 0
    """Epochs whose evaluation is done."""
    best: Best | None = None
    corrupt: dict[str, list[str]] = field(default_factory=dict)
    worlds: list[list[int]] = field(default_factory=list)
    seconds: float = 0.0
    """Wall clock of all starts."""
    history: list[float] = field(default_factory=list)
    """Of each evaluated epoch, the metric that earlyStop looks at."""
    first_loss: float | None = None
    """Of the run's first window."""
    pace: list[float] | None = None
    """See Pace.dump."""
    blend: list[float] | None = None
    """See Blend.dump."""
    fidelity: dict[str, str] | None = None
    """What the gate found before the first step."""

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Progress":
        best = content["best"]
        return cls(**{**content, "best": Best(**best) if best else None})


@dataclass
class Learner:
    """Network, optimizer and what belongs to them; the same on every process after every step, or a part of the same."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    layout: Layout

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return self.ema.model if self.ema else self.model

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights for a checkpoint, whole on rank 0; every process calls it."""
        averages = self.layout.gathered(self.ema.model) if self.ema else {}
        return _prefixed("model.", self.layout.gathered(self.model)) | _prefixed("ema.", averages)

    def best_tensors(self) -> dict[str, torch.Tensor]:
        """As `tensors`."""
        return _prefixed("model.", self.layout.gathered(self.judged))

    def counters(self, progress: Progress) -> dict[str, Any]:
        """The rest: what torch.load reads back with weights_only; every process calls it."""
        return {
            "optimizer": self.layout.optimizer_state(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "ema_updates": self.ema.updates if self.ema else 0,
            "progress": asdict(progress),
        }

    def restore(self, parcel: Parcel) -> Progress:
        """Continue where the checkpoint was written; strictly, so a network that differs is an error."""
        content = parcel.counters()
        self.layout.load(self.model, parcel.tensors("model."))
        self.layout.load_optimizer(self.optimizer, content["optimizer"])
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        if self.ema:
            self.layout.load(self.ema.model, parcel.tensors("ema."))
            self.ema.updates = content["ema_updates"]
        return Progress.read(content["progress"])


def identity(vision: Vision, *, fingerprint: str, micro_batch: int) -> dict[str, Any]:
    """What a checkpoint's manifest says of its run."""
    return {"fingerprint": fingerprint, "microBatch": micro_batch, "vision": vision.to_wire()}


def check_identity(recorded: Mapping[str, Any], own: Mapping[str, Any], *, run_dir: str) -> None:
    """Raises DataError if the data differ, ConfigError if the recipe does; the message names what, and both values."""
    was, is_ = _flat(recorded["vision"]), _flat(own["vision"])
    fields = sorted(name for name in was.keys() | is_.keys() if was.get(name) != is_.get(name))
    changes = [name for name in fields if not _may_change(name)]
    if changes:
        told = "; ".join(f"vision.{name} was {was.get(name)!r}, is {is_.get(name)!r}" for name in changes)
        raise ConfigError(
            f"{run_dir} holds checkpoints of another run ({told}): restore the value, or use another runDir"
        )
    if recorded["fingerprint"] != own["fingerprint"]:
        raise DataError(
            f"{run_dir} holds checkpoints of a run on other data: classes or files of a split have changed since; "
            "restore the data, or use another runDir"
        )


def seed_everything(seed: int) -> None:
    """For code of a task that draws without a generator; the trainer's own draws are keyed by step and sample."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _may_change(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in _MAY_CHANGE)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data": {"path": "/"}} to {"data.path": "/"}."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
