"""Which layout `vision.parallelism` asks for; and the simplest one, in which every process holds the whole network."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from darkroom_api.v1alpha1.parallelism import Compression, Strategy
from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.course import Course
from darkroom_trainer.data.sampler import Plan, share
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.feed import Feed
from darkroom_trainer.host import Host
from darkroom_trainer.layout import Layout, Tensors
from darkroom_trainer.parallel import Replica, RunningStatistics, make_replica
from darkroom_trainer.state import Learner
from darkroom_trainer.step import Stepper


def make_layout(vision: Vision, feed: Feed, plan: Plan, model: nn.Module) -> Layout:
    """`model` is on the CPU yet; one process needs no strategy. Raises ConfigError."""
    if feed.group.world == 1 or vision.parallelism.strategy == Strategy.DDP:
        return Whole(vision, feed, plan)
    if feed.precision.dtype == torch.float16:
        raise ConfigError(
            "vision.parallelism.strategy: all but DDP need precision BFloat16 or Float32; this GPU has no bfloat16"
        )
    if vision.parallelism.strategy == Strategy.FSDP:
        from darkroom_trainer.sharded import Sharded

        return Sharded(vision, feed, model)
    from darkroom_trainer.pipelined import Pipelined

    return Pipelined(vision, feed, plan, model)


def make_stepper(vision: Vision, host: Host, feed: Feed, plan: Plan, learner: Learner, course: Course) -> Stepper:
    """What takes the optimizer steps of a placed network."""
    if vision.parallelism.strategy == Strategy.PIPELINE and host.group.world > 1:
        from darkroom_trainer.pipeline_step import PipelineStepper

        return PipelineStepper(vision, host, feed, plan, learner, course)
    return Stepper(vision, host, feed, plan, learner, course)


class Whole:
    """Every process holds all of the network: one process, or DDP."""

    def __init__(self, vision: Vision, feed: Feed, plan: Plan) -> None:
        self._vision, self._feed, self._group, self._plan = vision, feed, feed.group, plan

    def place(self, model: nn.Module) -> nn.Module:
        return model.to(self._group.device, memory_format=self._feed.memory_format)

    def share(self, plan: Plan) -> range:
        return share(plan.micro_batches, self._group.rank, self._group.world)

    def replica(self, network: nn.Module) -> Replica:
        steady = self._vision.task == "Classification" and self._plan.micro_batches == self._group.world
        compress = Compression(self._vision.parallelism.compress)
        return make_replica(self._feed.task, network, self._group, compress=compress, steady=steady)

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[nn.Module]:
        yield model

    def statistics(self, model: nn.Module) -> RunningStatistics:
        return RunningStatistics(model, self._group)

    def local(self, model: nn.Module) -> Tensors:
        return model.state_dict()

    def gathered(self, model: nn.Module) -> Tensors:
        return model.state_dict()

    def clip(self, model: nn.Module, norm: float) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)

    def load(self, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        model.load_state_dict(tensors)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return optimizer.state_dict()

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        optimizer.load_state_dict(state)
