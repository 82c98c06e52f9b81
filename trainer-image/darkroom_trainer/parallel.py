"""Processes that train one network together: the group, the network in it, and what they tell each other.

Without a launcher, or with one process, the same code runs alone: every exchange is then the identity.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook, fp16_compress_hook
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from darkroom_api.v1alpha1.parallelism import Compression
from darkroom_trainer import watchdog
from darkroom_trainer.clock import now
from darkroom_trainer.errors import ConfigError, PeerLostError, TrainerError, headline
from darkroom_trainer.tasks.base import Batch, Task

T = TypeVar("T")

_TIMEOUT = timedelta(minutes=10)
"""A collective that waits this long has lost its peers; saving a checkpoint and the slowest batch must fit in."""
_AFTER_THE_WATCHDOG = timedelta(minutes=1)
"""Where somebody watches for ranks that hang, he comes first: he knows where they all stand."""

_LOST = re.compile(
    r"gloo/transport|connection (closed|reset) by|broken pipe|timed out waiting|wait timeout"
    r"|remote process exited|NCCL.*(remote|system|aborted)|watchdog",
    re.IGNORECASE,
)


def is_peer_loss(error: BaseException) -> bool:
    """Whether an error says that another process went away. Torch has types for some, and only words for gloo's."""
    if isinstance(error, PeerLostError | dist.DistNetworkError | dist.DistStoreError):
        return True
    if isinstance(error, dist.DistBackendError):
        return _LOST.search(str(error)) is not None
    return type(error) is RuntimeError and _LOST.search(str(error)) is not None


@dataclass(frozen=True)
class Group:
    """This process among its peers. rank: 0 to world - 1; local_rank and local_world: within this node."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the group, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Everybody's tensor, by rank; all of one shape."""
        if self.world == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(parts, tensor)
        return parts

    def gather(self, value: T) -> list[T]:
        """Everybody's value, by rank; pickled, for rare occasions."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, produce: Callable[[], T]) -> T:
        """What rank 0 produces, on every rank; an error of rank 0 is raised on every rank, with its exit code."""
        if self.world == 1:
            return produce()
        error: BaseException | None = None
        parcel: list[Any] = [None, None]
        if self.leads:
            try:
                parcel = [produce(), None]
            except Exception as raised:
                error = raised
                own = isinstance(raised, TrainerError)
                parcel = [None, raised if own else TrainerError(f"rank 0: {headline(raised)}")]
        dist.broadcast_object_list(parcel, src=0)
        if error or parcel[1]:
            raise error or parcel[1]
        return parcel[0]

    def leave(self) -> None:
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join() -> Group:
    """Join the group that the launcher describes in the environment; blocks until all are there.

    Raises ConfigError if this node has fewer GPUs than processes.
    """
    rank, world, local_rank, local_world = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"{local_world} processes on this node, but {torch.cuda.device_count()} GPU(s): "
                "processesPerNode must not be greater than the GPUs of a pod"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world > 1:
        cuda = device.type == "cuda"
        watched = timedelta(seconds=watchdog.seconds_of(os.environ) or 0) + _AFTER_THE_WATCHDOG
        timeout = max(_TIMEOUT, watched)
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timeout, device_id=device if cuda else None)
    return Group(rank, world, local_rank, local_world, device)


class Forward(nn.Module):
    """What DDP wraps: a batch in, the task's summed loss out.

    None in place of a batch gives a zero that depends on every weight: the gradient of a process without samples of its
    own is zero, and its part in the all-reduce is done.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(self, batch: Batch | None, generator: torch.Generator) -> torch.Tensor:
        if batch is None:
            return sum((p.sum() * 0 for p in self.model.parameters() if p.requires_grad), torch.zeros(()))
        return self._task.loss(self.model, batch, generator=generator)


_HOOKS = {Compression.BF16: bf16_compress_hook, Compression.FP16: fp16_compress_hook}


def make_replica(task: Task, model: nn.Module, group: Group, *, compress: Compression, steady: bool) -> "Replica":
    """DDP, where there are several processes.

    steady: whether every process has exactly one micro-batch in each step, and all of them run through the same layers.
    DDP may then learn the order of the gradients once; with accumulation, or an idle process, it would break.
    """
    if group.world == 1:
        return Replica(task, model, group)
    # Buffers are averaged by RunningStatistics.
    ddp = DistributedDataParallel(
        Forward(task, model), gradient_as_bucket_view=True, forward_sync_buffers=False, static_graph=steady
    )
    if hook := _HOOKS.get(compress):
        ddp.register_comm_hook(None, hook)
    return Replica(task, model, group, ddp, compressed=hook is not None)


class Replica:
    """One network on all processes: what gives losses, and exchanges gradients in the backward passes.

    independent: whether a forward pass needs this process alone; compressed: whether gradients travel in two bytes.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        group: Group,
        ddp: DistributedDataParallel | None = None,
        *,
        independent: bool = True,
        compressed: bool = False,
    ) -> None:
        self._group, self._ddp = group, ddp
        self.forward = ddp or Forward(task, model)
        self.independent, self._compressed = independent, compressed

    @property
    def loss_scale(self) -> int:
        """The sum of gradients is divided by the number of processes; losses are multiplied by it beforehand."""
        return self._group.world

    def accumulating(self, *, last: bool) -> Any:
        """Context of one backward pass; gradients are exchanged in the last of a step."""
        return nullcontext() if last or not self._ddp else self._ddp.no_sync()

    def exposed_seconds(self) -> float:
        """Seconds per step that the gradients' all-reduce went on after the backward pass had ended.

        DDP times its first iterations and then every hundredth by itself, on the device's own clock; this is their mean.
        """
        hidden = self._timing().get("avg_backward_compute_comm_overlap_time", 0) / 1e9
        return max(0.0, self.all_reduce_seconds() - hidden)

    def all_reduce_seconds(self) -> float:
        """Seconds per step from the first gradients sent to the last received, by the same measurement."""
        return self._timing().get("avg_backward_comm_time", 0) / 1e9

    def _timing(self) -> dict[str, Any]:
        return self._ddp._get_ddp_logging_data() if self._ddp else {}

    def gradient_bytes(self) -> int:
        """Bytes of all gradients: what a process exchanges in a step, or would with others."""
        sizes = (
            p.numel() * (2 if self._compressed else p.element_size())
            for p in self.forward.parameters()
            if p.requires_grad
        )
        return sum(sizes)


class Sum(Protocol):
    """Processes that add something up."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor: ...


class RunningStatistics:
    """Running mean and variance of BatchNorm layers that do not depend on the number of processes.

    DDP's way is to let rank 0's statistics win: they have seen 1/world of the images. Here the layers look at each
    micro-batch from the same state, r. The update is affine in the micro-batch's own statistics b_i, so the average over
    a step's micro-batches

        mean_i((1 - momentum) * r + momentum * b_i) = (1 - momentum) * r + momentum * mean_i(b_i)

    is one update of the step, whoever computed its parts. It costs one flat all-reduce of about 0.1 MB per step. Layers
    in evaluation mode (frozen ones) are left alone. Layers count steps, not micro-batches.
    """

    def __init__(self, model: nn.Module, group: Sum) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
        self._group = group

    @torch.no_grad()
    def begin_step(self) -> None:
        layers = [layer for layer in self._layers if layer.training]
        self._live = [tensor for layer in layers for tensor in (layer.running_mean, layer.running_var)]
        self._counts = [layer.num_batches_tracked for layer in layers if layer.num_batches_tracked is not None]
        self._before = [tensor.clone() for tensor in self._live]
        self._counted = [tensor.clone() for tensor in self._counts]
        self._sum = [torch.zeros_like(tensor) for tensor in self._live]

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Around the forward pass of one micro-batch."""
        if not self._live:
            yield
            return
        with torch.no_grad():
            torch._foreach_copy_(self._live, self._before)
            if self._counts:
                torch._foreach_copy_(self._counts, self._counted)
        yield
        with torch.no_grad():
            torch._foreach_add_(self._sum, self._live)

    @torch.no_grad()
    def end_step(self, micro_batches: int) -> None:
        """Average over all micro-batches of the step, on every process."""
        if not self._live:
            return
        flat = self._group.all_reduce(torch.cat([tensor.view(-1) for tensor in self._sum])) / micro_batches
        parts = flat.split([tensor.numel() for tensor in self._live])
        torch._foreach_copy_(self._live, [part.view_as(t) for part, t in zip(parts, self._live, strict=True)])
        if self._counts:
            torch._foreach_copy_(self._counts, [counted + 1 for counted in self._counted])


@dataclass(frozen=True)
class Beat:
    """What all processes know after a Pulse: sums over the group since the last one."""

    sums: list[float]
    stop: bool
    news: bool
    """Whether a process has something to tell that does not fit into numbers."""
    save: bool
    """Whether rank 0 wants a checkpoint now."""
    seconds: float
    ticks: int
    told: int
    """What rank 0 told the others."""


class Pulse:
    """One small all-reduce every few ticks, which are steps or evaluation batches.

    It carries the sums that would otherwise cost a synchronisation per step, and the wish to leave: any process may be
    the one that is told to, and all must leave at the same step. The number of ticks between two beats is rank 0's
    choice, so that a beat comes about once in `period` seconds.
    """

    def __init__(self, group: Group, *, period: float = 1.0) -> None:
        self._group, self._period = group, period
        self._every, self._ticks, self._since = 1, 0, now()

    def restart(self) -> None:
        """After a pause that says nothing about the speed of ticks."""
        self._since = now()

    def tick(self) -> bool:
        """Count one; whether it is time for a beat."""
        self._ticks += 1
        return self._ticks >= self._every

    def beat(self, sums: torch.Tensor, *, stop: bool, news: bool = False, save: bool = False, told: int = 0) -> Beat:
        """Exchange; every process must call this at the same tick. `sums` (any device, 1-d) is zeroed.

        `told` and `save` are rank 0's to give, and 0 on the others.
        """
        interval = self._next_interval() if self._group.leads else 0
        host = torch.tensor([stop, news, save, interval, told], dtype=torch.float64)
        total = self._group.all_reduce(torch.cat([host.to(sums.device), sums.double()])).tolist()
        flags, interval, told = [flag > 0 for flag in total[:3]], int(total[3]), int(total[4])
        beat = Beat(total[5:], *flags, seconds=now() - self._since, ticks=self._ticks, told=told)
        sums.zero_()
        self._every, self._ticks, self._since = interval, 0, now()
        return beat

    def _next_interval(self) -> int:
        per_tick = (now() - self._since) / max(1, self._ticks)
        return max(1, min(int(self._period / max(per_tick, 1e-6)), 4 * self._every))
