"""Pipeline parallelism: each process holds some stages of the network, and micro-batches go through them one after another.

    Huang et al., GPipe, 2019; Narayanan et al., PipeDream (1F1B), 2019; torch.distributed.pipelining

Ranks of one pipeline are neighbours, so they share a node where they can. With several pipelines, their copies of a stage
are replicas that add up gradients once per step. Checkpoints are those of one process: other stages wait in host memory.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.flop_counter import FlopCounterMode

from darkroom_api.v1alpha1.parallelism import Compression
from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.feed import Feed
from darkroom_trainer.layout import Tensors, lent
from darkroom_trainer.parallel import Replica, RunningStatistics
from darkroom_trainer.stages import Stage

_TRAVELLING = {Compression.BF16: torch.bfloat16, Compression.FP16: torch.float16}


@dataclass(frozen=True)
class Replicas:
    """The processes that hold the same stages."""

    group: dist.ProcessGroup
    world: int

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over them, in place."""
        if self.world > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor


class StatisticsInFlight(RunningStatistics):
    """Several micro-batches wait for their backward pass, which wants the statistics as they were: each has its own."""

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        layers = [layer for layer in self._layers if layer.training]
        own = [tensor.clone() for tensor in self._before]
        _use(layers, own)
        yield
        _use(layers, self._live)
        with torch.no_grad():
            torch._foreach_add_(self._sum, own)


def _use(layers: Sequence[nn.Module], tensors: Sequence[torch.Tensor]) -> None:
    for layer, mean, variance in zip(layers, tensors[::2], tensors[1::2], strict=True):
        layer.running_mean, layer.running_var = mean, variance


class Pipelined:
    """The `Layout` of a pipeline of `depth` processes, and of `world / depth` such pipelines side by side."""

    def __init__(self, vision: Vision, feed: Feed, plan: Plan, model: nn.Module) -> None:
        group, self.depth = feed.group, vision.parallelism.stages
        self._feed, self._group, self._compress = feed, group, Compression(vision.parallelism.compress)
        pipelines = check(plan, world=group.world, depth=self.depth)
        self.place_in_line, self._pipeline = group.rank % self.depth, group.rank // self.depth
        mesh = init_device_mesh(group.device.type, (pipelines, self.depth), mesh_dim_names=("pipeline", "stage"))
        self.line = mesh["stage"].get_group()
        self.replicas = Replicas(mesh["pipeline"].get_group(), pipelines)
        self._hosts = dist.new_group(backend="gloo") if group.device.type != "cpu" else dist.group.WORLD
        shape = (plan.batch // plan.micro_batches, 3, vision.image_size, vision.image_size)
        self.shapes, costs = measured(feed, model, shape)
        if len(costs) < self.depth:
            raise ConfigError(f"vision.parallelism.stages: {vision.model.architecture} has no more than {len(costs)}")
        self.parts = cut(costs, self.depth)
        self._spare = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self._held = set[int]()
        self._owner = owners(model, feed.task.stages(model), self.parts)

    @property
    def own(self) -> range:
        """The stages of this process."""
        return self.parts[self.place_in_line]

    def place(self, model: nn.Module) -> nn.Module:
        for stage in self.held(model):
            for module in stage.modules:
                module.to(self._group.device, memory_format=self._feed.memory_format)
            for parameter in stage.parameters():
                self._held.add(id(parameter))
                parameter.data = parameter.data.to(self._group.device)
        return model

    def held(self, model: nn.Module) -> list[Stage]:
        """This process's stages of a network."""
        return list(self._feed.task.stages(model))[self.own.start : self.own.stop]

    def share(self, plan: Plan) -> range:
        """The first stage reads images, and the last one labels; those between read nothing."""
        reads = self.place_in_line in (0, self.depth - 1)
        return range(self._pipeline, plan.micro_batches if reads else 0, self.replicas.world)

    def turns(self, plan: Plan) -> range:
        """The micro-batches that go through this pipeline in each step."""
        return range(self._pipeline, plan.micro_batches, self.replicas.world)

    def replica(self, network: nn.Module) -> Replica:
        return Replica(self._feed.task, network, self._group)

    def statistics(self, model: nn.Module) -> RunningStatistics:
        modules = [module for stage in self.held(model) for module in stage.modules]
        return StatisticsInFlight(nn.ModuleList(modules), self.replicas)

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[nn.Module]:
        with lent(self._spare, self.gathered(model).items(), self._group.device) as spare:
            yield spare

    def local(self, model: nn.Module) -> Tensors:
        return {n: tensor for n, tensor in model.state_dict().items() if self._owner[n] == self.place_in_line}

    def gathered(self, model: nn.Module) -> Tensors:
        """From the processes of the first pipeline to all, by way of host memory."""
        found = {}
        for name, tensor in model.state_dict().items():
            found[name] = tensor.detach().to("cpu", copy=True).contiguous()
            dist.broadcast(found[name], src=self._owner[name], group=self._hosts)
        return found

    def load(self, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        model.load_state_dict(tensors)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        content = optimizer.state_dict()
        own = {key: _on_host(state) for key, state in content["state"].items()} if self._pipeline == 0 else {}
        parts: list[Any] = [None] * self._group.world
        dist.gather_object(own, parts if self._group.leads else None, dst=0, group=self._hosts)
        merged = {key: state for part in parts for key, state in (part or {}).items()}
        return {**content, "state": dict(sorted(merged.items()))}

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Momentum of other processes' stages would only take room."""
        everything = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        held = {key for key, parameter in enumerate(everything) if id(parameter) in self._held}
        own = {key: value for key, value in state["state"].items() if key in held}
        optimizer.load_state_dict({**state, "state": own})

    def clip(self, model: nn.Module, norm: float) -> None:
        """By the norm over all stages."""
        parameters = [parameter for stage in self.held(model) for parameter in stage.parameters()]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        square = nn.utils.get_total_norm(gradients).square()
        dist.all_reduce(square, group=self.line)
        nn.utils.clip_grads_with_norm_(parameters, norm, square.sqrt())

    def exchange(self, model: nn.Module) -> None:
        """Add up the replicas' gradients."""
        if self.replicas.world == 1:
            return
        learned = (parameter for stage in self.held(model) for parameter in stage.parameters())
        gradients = [parameter.grad for parameter in learned if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        travelling = self.replicas.all_reduce(flat.to(_TRAVELLING.get(self._compress, flat.dtype)))
        parts = travelling.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)])


def check(plan: Plan, *, world: int, depth: int) -> int:
    """How many pipelines there are. Raises ConfigError for processes and micro-batches that do not fill them."""
    if world % depth:
        raise ConfigError(f"vision.parallelism.stages: {world} processes do not make pipelines of {depth}")
    pipelines, parts = world // depth, plan.micro_batches
    if plan.batch % parts or parts % pipelines or parts // pipelines < depth:
        raise ConfigError(
            f"vision.microBatchSize: {plan.batch} images in {parts} micro-batches do not fill {pipelines} pipeline(s) of {depth} "
            f"stages, which need micro-batches of one size, in a multiple of {pipelines}, and at least {depth} for each"
        )
    return pipelines


def cut(costs: Sequence[float], parts: int) -> list[range]:
    """Stages one after another in `parts` ranges, so that the costliest one costs least."""
    sums = [0, *accumulate(costs)]

    def worst(bounds: tuple[int, ...]) -> float:
        return max(sums[end] - sums[start] for start, end in pairwise((0, *bounds, len(costs))))

    bounds = min(combinations(range(1, len(costs)), parts - 1), key=worst)
    return [range(start, end) for start, end in pairwise((0, *bounds, len(costs)))]


def measured(feed: Feed, model: nn.Module, shape: tuple[int, ...]) -> tuple[list[torch.Size], list[float]]:
    """Shapes before each stage and after the last one, and each one's floating-point operations; nothing is computed."""
    stages = feed.task.stages(copy.deepcopy(model).to("meta"))
    images, costs = torch.empty(shape, device="meta"), []
    shapes = [images.shape]
    with torch.no_grad():
        for stage in stages:
            with FlopCounterMode(display=False) as counter:
                images = stage(images)
            costs.append(counter.get_total_flops())
            shapes.append(images.shape)
    return shapes, costs


def owners(model: nn.Module, stages: Sequence[Stage], parts: Sequence[range]) -> dict[str, int]:
    """Which place in the line holds each tensor."""
    place = {
        id(tensor): number
        for number, part in enumerate(parts)
        for stage in stages[part.start : part.stop]
        for tensor in (*stage.parameters(), *(b for module in stage.modules for b in module.buffers()))
    }
    return {name: place[id(tensor)] for name, tensor in model.state_dict(keep_vars=True).items()}


def _on_host(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in state.items()}
