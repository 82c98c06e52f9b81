"""From the configured recipe to torch's settings: threads and seeds, optimizer, autocast and loss scaling."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from darkroom_api.v1alpha1.vision import Optimizer, Vision
from darkroom_trainer.data.loader import compute_threads, cpu_limit, worker_count
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.parallel import Group
from darkroom_trainer.state import seed_everything


def configure_torch(vision: Vision, group: Group) -> int:
    """Set this process's threads, kernels and seeds; the number of loader processes that leaves the threads their cores."""
    cpus, local = cpu_limit(), group.local_world
    workers = worker_count(vision.workers, cpus=cpus, local_processes=local, device=group.device.type)
    torch.set_num_threads(compute_threads(cpus=cpus, local_processes=local, workers=workers))
    torch.use_deterministic_algorithms(vision.deterministic)
    torch.backends.cudnn.benchmark = not vision.deterministic
    seed_everything(vision.seed)
    return workers


def make_optimizer(
    parameters: Sequence[tuple[float, Sequence[nn.Parameter]]], optimizer: Optimizer, *, device: torch.device
) -> torch.optim.Optimizer:
    """SGD (Nesterov) or AdamW; vectors, which are norm layers' parameters and biases, get no weight decay.

    `parameters`: each with the factor of its learning rate. Those without a gradient, because they are frozen, stay as
    they are, without decay and without state. Raises ConfigError if torch refuses a value.
    """
    groups = []
    for scale, some in parameters:
        matrices, vectors = [p for p in some if p.ndim > 1], [p for p in some if p.ndim <= 1]
        groups.append({"params": matrices, "weight_decay": float(optimizer.weight_decay), "scale": scale})
        groups.append({"params": vectors, "weight_decay": 0.0, "scale": scale})
    groups = [group for group in groups if group["params"]]
    rate, momentum, fused = float(optimizer.learning_rate), float(optimizer.momentum), device.type == "cuda"
    try:
        if optimizer.name == "SGD":
            return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=fused)
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, 0.999), fused=fused)
    except ValueError as error:
        raise ConfigError(f"vision.optimizer: {error}") from error


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """`rate` is the head's; other stages have a factor of their own, which checkpoints of earlier versions lack."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


@dataclass(frozen=True)
class Precision:
    """Number format of the forward pass; `dtype` None is plain float32."""

    device: str
    dtype: torch.dtype | None

    @classmethod
    def of(cls, vision: Vision, device: torch.device) -> "Precision":
        """Auto: bfloat16 where the GPU computes in it, else float16 on a GPU, else float32."""
        named = {"Float32": None, "BFloat16": torch.bfloat16, "Float16": torch.float16}
        if vision.precision != "Auto":
            return cls(device.type, named[vision.precision])
        if device.type != "cuda":
            return cls(device.type, None)
        return cls("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss, so that small gradients survive float16; does nothing for the other formats."""
        return torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)


_LEAST_ON_CPU = 64
"""Pixels below which a CPU's kernels lose by channels-last: the last layers' maps are a pixel or two wide."""


def memory_format(vision: Vision, model: nn.Module, device: torch.device) -> torch.memory_format:
    """Layout of image tensors. Auto: channels-last for convolutional networks, as tensor cores and CPUs' kernels want it."""
    if vision.memory_format == "Auto":
        convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
        worthwhile = device.type == "cuda" or vision.image_size >= _LEAST_ON_CPU
        channels_last = worthwhile and convolutions > 1  # a lone one cuts a transformer's patches
    else:
        channels_last = vision.memory_format == "ChannelsLast"
    return torch.channels_last if channels_last else torch.contiguous_format
