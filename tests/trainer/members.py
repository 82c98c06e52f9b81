"""What a process of a group does in a test; in a module of its own, for the fork server imports it."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.checkpoint import Checkpoints
from darkroom_trainer.clock import Clock
from darkroom_trainer.host import Host
from darkroom_trainer.parallel import Group, is_peer_loss, join
from darkroom_trainer.tasks import make_task
from darkroom_trainer.train import Run, train
from tests.trainer.toy_task import Toy


def train_member(config: TrainerConfig, leave_at: int | None = None) -> dict[str, Any]:
    """Train in a group; rank 0 is told to leave once it has done `leave_at` steps. How it ended."""
    torch.set_num_threads(1)
    group = join()
    host = Host(group=group)
    steps = Counting(config, leave_at if group.leads else None)
    host.stop = steps.asked
    message = train(config, steps, host)
    group.leave()
    return {"reason": message.reason, "step": message.step, "message": message.to_wire()}


def task_member(config: TrainerConfig, leave_at: int | None = None) -> dict[str, Any]:
    """As train_member, of the task that the configuration names; it leaves after `leave_at` micro-batches of rank 0."""
    torch.set_num_threads(1)
    group = join()
    task, host, seen = make_task(config), Host(group=group), 0
    loss = task.loss

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return loss(*arguments, **options)

    task.loss = counted  # type: ignore[method-assign]
    host.stop = lambda: leave_at is not None and group.leads and seen >= leave_at
    message = train(config, task, host)
    group.leave()
    return {"reason": message.reason, "step": message.step, "message": message.to_wire()}


def measured_member(config: TrainerConfig, alone: bool) -> dict[str, Any]:
    """Train in a group, or each process by itself; what a step took, in seconds of the processor."""
    torch.set_num_threads(1)
    group = join()
    if alone:
        config = config.model_copy(update={"run_dir": f"{config.run_dir}-{group.rank}"})
    host = Host(group=Group() if alone else group, clock=Clock(0.0, now=time.process_time))
    message = train(config, Heavy(config), host)
    group.leave()
    assert message.step_times is not None
    return message.step_times.to_wire()


class Heavy(Toy):
    """Digits, for a network that takes long enough to be measured."""

    def build_model(self) -> nn.Module:
        torch.manual_seed(self.seed)
        layers = [nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in ((3, 32), (32, 64), (64, 64))]
        return nn.Sequential(
            nn.Upsample(scale_factor=2), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
        )


class Counting(Toy):
    """Digits; counts optimizer steps by the micro-batches seen, to leave at one."""

    def __init__(self, config: TrainerConfig, leave_at: int | None) -> None:
        super().__init__(config)
        self.leave_at = leave_at

    def asked(self) -> bool:
        return self.leave_at is not None and self.steps >= self.leave_at


def newest(run: Path) -> dict[str, torch.Tensor]:
    """Weights, statistics, averages and momentum of the newest checkpoint."""
    parcel = Checkpoints(run / "checkpoints", keep=9).newest()
    assert parcel is not None
    tensors = parcel.tensors("")
    for key, state in parcel.counters()["optimizer"]["state"].items():
        tensors |= {f"optimizer.{key}.{name}": t for name, t in state.items() if isinstance(t, torch.Tensor)}
    return tensors


def gradient_member(config: TrainerConfig) -> dict[str, np.ndarray]:
    """Weights after three steps; not as tensors, which are shared by a process that is gone when they are read."""
    torch.set_num_threads(1)
    group = join()
    run = Run(config, Toy(config), Host(group=group))
    run.enter_phase()
    for _ in range(3):
        run.train_step()
    state = {name: tensor.numpy().copy() for name, tensor in run.learner.model.state_dict().items()}
    group.leave()
    return state


def steady_member(config: TrainerConfig) -> list[bool]:
    """Whether DDP takes the graph for static, in each phase, and a step through it."""
    torch.set_num_threads(1)
    group = join()
    run = Run(config, Toy(config), Host(group=group))
    steady = []
    for phase in run.course.phases:
        run.progress.step = phase.start
        run.enter_phase()
        for _ in range(2):
            run.train_step()
        steady.append(run.course.replica._ddp.static_graph)
    group.leave()
    return steady


def initial_member(config: TrainerConfig) -> dict[str, np.ndarray]:
    """Weights before the first step."""
    return {name: tensor.numpy().copy() for name, tensor in Toy(config).build_model().state_dict().items()}


def phases_member(config: TrainerConfig) -> list[dict[str, np.ndarray]]:
    """The gradients of the last step of each phase, of every parameter that has one."""
    torch.set_num_threads(1)
    group = join()
    run = Run(config, Toy(config), Host(group=group))
    gradients = []
    for phase in run.course.phases:
        run.enter_phase()
        run.learner.optimizer.zero_grad = lambda: None  # the gradients of the last step are looked at
        while run.progress.step < phase.end:
            for parameter in run.learner.model.parameters():
                parameter.grad = None
            run.train_step()
        named = run.learner.model.named_parameters()
        gradients.append({name: p.grad.numpy().copy() for name, p in named if p.grad is not None})
    group.leave()
    return gradients


def split_view_member(config: TrainerConfig) -> Exception | None:
    """Each process has other files in its folder; what the run says of it."""
    group = join()
    task = Toy(config)
    task.faults["fingerprint"] = str(group.rank)
    try:
        Run(config, task, Host(group=group))
    except Exception as error:
        return error
    finally:
        group.leave()
    return None


def evaluate_member(config: TrainerConfig) -> dict[str, float]:
    """Metrics of the validation split with the initial weights."""
    torch.set_num_threads(1)
    group = join()
    run = Run(config, Toy(config), Host(group=group))
    metrics = run.evaluate("val")
    group.leave()
    return metrics


def share_member(fail: type[Exception] | None) -> Any:
    """What Group.share gives."""
    group: Group = join()

    def produce() -> int:
        if fail:
            raise fail("rank 0 could not\nfor a reason")
        return 42

    try:
        return group.share(produce)
    except Exception as error:
        return error
    finally:
        group.leave()


def peer_loss_told_member() -> Any:
    """Rank 1 goes away in good order; what rank 0 makes of the error that it meets."""
    group = join()
    if group.rank == 1:
        return "gone"  # the process ends, and its connections with it
    try:
        for _ in range(100_000):
            group.all_reduce(torch.ones(1))
    except Exception as error:
        return is_peer_loss(error), f"{type(error).__name__}: {error}"
    return None


def share_of_weights_member(config: TrainerConfig, steps: int) -> dict[str, Any]:
    """The network after `steps` steps in each phase, and what part of its weights and momentum this process holds."""
    torch.set_num_threads(1)
    group = join()
    run = Run(config, make_task(config), Host(group=group))
    for phase in run.course.phases:
        run.progress.step = phase.start
        run.enter_phase()
        for _ in range(steps):
            run.train_step()
    state = {name: tensor.float().numpy().copy() for name, tensor in run.learner.tensors().items()}
    learned = [*run.learner.model.parameters(), *(v for s in run.learner.optimizer.state.values() for v in s.values())]
    held = sum(tensor.to_local().numel() if isinstance(tensor, DTensor) else tensor.numel() for tensor in learned)
    moving = sum(tensor.numel() for state in run.learner.optimizer.state.values() for tensor in state.values())
    group.leave()
    return {"state": state, "share": held / sum(tensor.numel() for tensor in learned), "learned": moving}
