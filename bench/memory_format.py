"""What `memoryFormat: Auto` is worth on a CPU: CPU seconds of a training step, contiguous over channels-last.

Both layouts take turns in one process on one thread, so that a busy machine slows both; the least of the steps counts.
On a GPU the gain is larger, and its tensor cores' affair.
"""

import time
from typing import Any

import torch
from torch.nn import functional

from darkroom_trainer.models import build_model

NETWORKS = {
    "resnet18": (64, 32), "resnet50": (96, 8), "mobilenet_v3_small": (96, 16), "efficientnet_b0": (96, 8),
    "densenet121": (64, 8), "convnext_tiny": (64, 8), "vgg11": (64, 8),
}  # fmt: skip
"""Image size and batch of each."""
ROUNDS = 12
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def run() -> dict[str, Any]:
    """Ratio by network: above 1, channels-last is faster."""
    torch.set_num_threads(1)
    return {f"{name}_contiguous_to_channels_last": _ratio(name, *sizes) for name, sizes in NETWORKS.items()}


def _ratio(name: str, size: int, batch: int) -> float:
    steps = [_Step(name, size, batch, layout) for layout in LAYOUTS]
    seconds = [[step() for step in steps] for _ in range(ROUNDS)][1:]  # the first round chooses kernels
    contiguous, channels_last = (min(column) for column in zip(*seconds, strict=True))
    return round(contiguous / channels_last, 2)


class _Step:
    """A training step with all in one layout; calling it gives its CPU seconds."""

    def __init__(self, name: str, size: int, batch: int, layout: torch.memory_format) -> None:
        self._model = build_model(name, classes=10, image_size=size).to(memory_format=layout)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
        self._images = torch.randn(batch, 3, size, size).contiguous(memory_format=layout)
        self._targets = torch.arange(batch) % 10

    def __call__(self) -> float:
        began = time.process_time()
        functional.cross_entropy(self._model(self._images), self._targets).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return time.process_time() - began
