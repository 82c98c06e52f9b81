"""Moving average of a network: smoother than the last step, and usually better."""

import copy

import torch
from torch import nn

_REFERENCE_BATCH = 1024


class Ema:
    """Keeps `model`, a copy whose floating-point weights and buffers follow the trained network.

    `decay` is per step at a global batch of 1024; d ** (batch / 1024) forgets as much per image at any other batch.
    Early on the average follows faster, (1 + n) / (10 + n) after n updates: otherwise a short run would be judged by
    its initial weights.
    """

    def __init__(self, model: nn.Module, *, decay: float, batch: int) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.decay = decay ** (batch / _REFERENCE_BATCH)
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Once after each optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        ours, theirs = self.model.state_dict(), model.state_dict()
        floating = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay)
        for name in ours.keys() - set(floating):
            ours[name].copy_(theirs[name])
