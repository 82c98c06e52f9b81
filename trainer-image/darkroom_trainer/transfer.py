"""Which stages of a network learn when, and how fast: transfer learning as a plan made before the first step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from darkroom_api.v1alpha1.transfer import BatchNorm, Transfer, TransferPolicy
from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.stages import Stage


@dataclass(frozen=True)
class Phase:
    """The steps from `start` to before `end`, in which the stages from `first` on learn."""

    start: int
    end: int
    first: int
    ramp: int = 0
    """Steps in which the learning rate rises again, for the stages that have just been opened."""

    def ease(self, position: float) -> float:
        """Factor of the learning rate at a position in the schedule, in steps."""
        return min(1.0, (position - self.start + 1) / (self.ramp + 1))


def phases_of(transfer: Transfer, stages: int, plan: Plan, *, warmup: int) -> tuple[Phase, ...]:
    """The phases of a run, end to end, in order; `stages` counts the head, `warmup` is the schedule's, in steps.

    A phase begins with the first step that lies wholly in its epoch. Raises ConfigError if there are too few stages.
    """
    opened = _opened(transfer, stages)
    starts = [min(plan.steps, math.ceil(n * transfer.phase_epochs * plan.steps_per_epoch)) for n in range(len(opened))]
    phases = []
    for first, start, end in zip(opened, starts, [*starts[1:], plan.steps], strict=True):
        if start < end:
            phases.append(Phase(start, end, first, min(warmup, (end - start) // 4) if phases else 0))
    return tuple(phases)


def _opened(transfer: Transfer, stages: int) -> list[int]:
    """The first stage that learns, phase by phase."""
    head = stages - 1
    match transfer.policy:
        case TransferPolicy.HEAD:
            return [head]
        case TransferPolicy.LAST_STAGES:
            if transfer.stages > head:
                raise ConfigError(f"vision.transfer.stages: this network has {head} stages below its head")
            return [head - transfer.stages]
        case TransferPolicy.GRADUAL:
            return list(range(head, -1, -1))
        case TransferPolicy.HEAD_THEN_ALL:
            return [head, 0]
        case _:
            return [0]


class Layers:
    """The stages of one network: opened from some stage on, put into training mode, and told their learning rates."""

    def __init__(self, model: nn.Module, stages: Sequence[Stage], transfer: Transfer) -> None:
        self._model, self._transfer, self.stages = model, transfer, stages
        self._first = 0

    def open(self, first: int) -> None:
        """Let the stages from `first` on learn, and no others."""
        self._first = first
        for number, stage in enumerate(self.stages):
            for parameter in stage.parameters():
                parameter.requires_grad_(number >= first)

    def train(self) -> None:
        """Training mode for the stages that learn; the others answer as they will in the exported model."""
        self._model.train()
        for stage in self.stages[: self._first]:
            for module in stage.modules:
                module.eval()
        rule = self._transfer.batch_norm
        if rule == BatchNorm.TRAIN:
            return
        for stage in self.stages[:-1]:
            for norm in _norms(stage):
                norm.train(rule == BatchNorm.ADAPT)

    def rates(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Factor of the learning rate, and the parameters that it is for; every parameter once."""
        decay, top = float(self._transfer.layer_decay), len(self.stages) - 1
        return [(decay ** (top - number), stage.parameters()) for number, stage in enumerate(self.stages)]


def _norms(stage: Stage) -> list[nn.Module]:
    modules = (inner for module in stage.modules for inner in module.modules())
    return [module for module in modules if isinstance(module, _NormBase) and module.running_mean is not None]
