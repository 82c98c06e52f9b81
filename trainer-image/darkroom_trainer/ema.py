"""Moving average of a network: smoother than the last step, and usually better."""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from darkroom_api.v1alpha1.vision import Ema as Wanted

_REFERENCE_BATCH = 1024


class Ema:
    """Keeps `model`, a copy whose floating-point weights and buffers follow the trained network.

    `decay` is per step at a global batch of 1024; d ** (batch / 1024) forgets as much per image at any other batch.
    Updated every so many steps, it forgets as much as if it were updated in each.
    Early on the average follows faster, (1 + n) / (10 + n) after n updates: otherwise a short run would be judged by
    its initial weights.
    """

    def __init__(self, model: nn.Module, *, decay: float, batch: int, every: int = 1) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.decay = decay ** (batch * every / _REFERENCE_BATCH)
        self._every = every
        self.updates = 0

    @classmethod
    def of(cls, wanted: Wanted | None, model: nn.Module, *, batch: int) -> "Ema | None":
        """As `vision.ema` wants it; absent: none."""
        return cls(model, decay=float(wanted.decay), batch=batch, every=wanted.every_steps) if wanted else None

    def is_due(self, step: int) -> bool:
        """Whether to update after optimizer step number `step`, counted from 0."""
        return (step + 1) % self._every == 0

    @torch.no_grad()
    def update(self, ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
        """What this process holds of the average follows the same of the network."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay)
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])
