"""FSDP: each process holds a part of every weight, gradient and momentum, and the whole of a block while it computes it.

    Zhao et al., PyTorch FSDP, 2023; torch.distributed.fsdp.fully_shard (FSDP2)

Checkpoints hold whole tensors, as those of one process do: a run continues on any number of processes, with or without
shards.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _NormBase

from darkroom_api.v1alpha1.parallelism import Compression
from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.data.sampler import Plan, even_share
from darkroom_trainer.feed import Feed
from darkroom_trainer.layout import Tensors, lent
from darkroom_trainer.parallel import Replica, RunningStatistics
from darkroom_trainer.stages import Stage

_LEAST = 100_000
"""Parameters from which a block is worth an exchange of its own; the smaller ones share that of the network."""

_REDUCED = {Compression.BF16: torch.bfloat16, Compression.FP16: torch.float16}


class Sharded:
    """The `Layout` of FSDP; every forward pass needs all processes, so all have equally many micro-batches."""

    def __init__(self, vision: Vision, feed: Feed, model: nn.Module) -> None:
        self._vision, self._feed, self._group = vision, feed, feed.group
        self._mesh = init_device_mesh(feed.group.device.type, (feed.group.world,))
        self._spare = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)

    def place(self, model: nn.Module) -> nn.Module:
        """Shards are cut along the first dimension of contiguous weights; images may still be channels-last."""
        policy = self._policy(model)
        for block in blocks(self._feed.task.stages(model)):
            fully_shard(block, mesh=self._mesh, mp_policy=policy)
        fully_shard(model, mesh=self._mesh, mp_policy=policy)
        return model

    def _policy(self, model: nn.Module) -> MixedPrecisionPolicy:
        """Weights travel in half precision if the network computes in it and has no BatchNorm, which wants float32."""
        norms = any(isinstance(module, _NormBase) for module in model.modules())
        reduced = _REDUCED.get(Compression(self._vision.parallelism.compress), torch.float32)
        return MixedPrecisionPolicy(param_dtype=None if norms else self._feed.precision.dtype, reduce_dtype=reduced)

    def share(self, plan: Plan) -> range:
        return even_share(plan.micro_batches, self._group.rank, self._group.world)

    def replica(self, network: nn.Module) -> Replica:
        return Replica(self._feed.task, network, self._group, independent=False)

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[nn.Module]:
        """Evaluation has no gradients and no momentum: there is room for a whole network, and no need for exchanges."""
        tensors = ((name, _whole(tensor)) for name, tensor in model.state_dict().items())
        with lent(self._spare, tensors, self._group.device) as spare:
            yield spare

    def statistics(self, model: nn.Module) -> RunningStatistics:
        return RunningStatistics(model, self._group)

    def local(self, model: nn.Module) -> Tensors:
        return {n: t.to_local() if isinstance(t, DTensor) else t for n, t in model.state_dict().items()}

    def gathered(self, model: nn.Module) -> Tensors:
        """One after another: no GPU ever holds all of it."""
        return self._at_rank_0(model.state_dict())

    def load(self, model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
        own = model.state_dict()
        model.load_state_dict({name: _sharded(t, own[name]) if name in own else t for name, t in tensors.items()})

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        content = optimizer.state_dict()
        return {**content, "state": {key: self._at_rank_0(state) for key, state in content["state"].items()}}

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        shards = {
            key: {
                name: _sharded(t, parameters[key]) if _shaped(t, parameters[key]) else t for name, t in values.items()
            }
            for key, values in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": shards})

    def clip(self, model: nn.Module, norm: float) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)

    def _at_rank_0(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        wholes = ((name, _whole(tensor)) for name, tensor in tensors.items())
        return {name: whole.cpu() if self._group.leads else whole.new_empty(0) for name, whole in wholes}


def blocks(stages: Sequence[Stage]) -> list[nn.Module]:
    """What is gathered in one piece: the blocks that a stage runs one after another. The head is the network's own."""
    inner = (block for stage in stages[:-1] for module in stage.modules for block in _opened(module))
    return [block for block in inner if sum(p.numel() for p in block.parameters()) >= _LEAST]


def _opened(module: nn.Module) -> list[nn.Module]:
    return list(module.children()) if type(module) is nn.Sequential else [module]


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _sharded(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole tensor that every process has."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _shaped(value: Any, parameter: torch.Tensor) -> bool:
    """Momentum is; counts of steps are not."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape
