"""How a network lies on the processes that train it: the part of the trainer that differs between the strategies."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.parallel import Replica, RunningStatistics

Tensors = dict[str, torch.Tensor]


class Layout(Protocol):
    """Made once per run, before the network is placed. All processes call each method at the same place."""

    def place(self, model: nn.Module) -> nn.Module:
        """Bring the network from the CPU to where it is trained; the parameters may be other objects afterwards."""

    def share(self, plan: Plan) -> range:
        """What this process computes of each step; numbers beyond the step's micro-batches repeat one and don't count."""

    def replica(self, network: nn.Module) -> Replica:
        """What computes losses; made anew whenever other stages learn."""

    def whole(self, model: nn.Module) -> AbstractContextManager[nn.Module]:
        """Context in which the network, with the weights of `model`, is whole on this process: for evaluation."""

    def statistics(self, model: nn.Module) -> RunningStatistics:
        """Of the BatchNorm layers that this process runs."""

    def local(self, model: nn.Module) -> Tensors:
        """What this process holds of the network's tensors, by name."""

    def gathered(self, model: nn.Module) -> Tensors:
        """Whole tensors of a placed network, on rank 0; what the others get is of no use."""

    def load(self, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        """Whole tensors into a placed network, strictly."""

    def clip(self, model: nn.Module, norm: float) -> None:
        """Scale the whole network's gradient down to that norm."""

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """As of an optimizer of the whole network, on rank 0."""

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """The reverse."""


@contextmanager
def lent(spare: nn.Module, tensors: Iterable[tuple[str, torch.Tensor]], device: torch.device) -> Iterator[nn.Module]:
    """A network out of host memory, for a while on the device, with these weights, which are taken one by one."""
    spare.to(device)
    own = spare.state_dict()
    for name, tensor in tensors:
        own[name].copy_(tensor)
    try:
        yield spare
    finally:
        spare.to("cpu")
