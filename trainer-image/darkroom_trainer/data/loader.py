"""The DataLoader around a split: how many processes, how they start, and who may interrupt them."""

import math
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from darkroom_api.names import ENV_CPU_LIMIT
from darkroom_trainer import watchdog
from darkroom_trainer.data.sampler import EvaluationBatches, TrainingBatches
from darkroom_trainer.tasks.base import ImageSet

_MOST_WORKERS = 16
_PRELOAD = ["torch", "torch.utils.data", "numpy", "PIL.Image", "darkroom_trainer.tasks.base"]


def cpu_limit(environ: dict[str, str] | None = None, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this pod may use: DARKROOM_CPU_LIMIT, else the cgroup's quota, else the affinity mask.

    A Kubernetes CPU limit is a quota and leaves the affinity mask as it is, so os.cpu_count() and its like see the whole
    node, and would start ten times as many processes as there is CPU for.
    """
    environ = dict(os.environ) if environ is None else environ
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = environ.get(ENV_CPU_LIMIT, "")
    if told.isdigit() and int(told) > 0:
        return min(mask, int(told))
    return min(mask, math.ceil(_quota(cgroup) or mask))


def _quota(cgroup: Path) -> float | None:
    """Cores of the CFS quota, by cgroup v2 or v1."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file, `max`
        return None


def worker_count(wanted: int | str, *, cpus: int, local_processes: int, device: str) -> int:
    """Loader processes of one training process.

    Beside a GPU, all cores but the one that feeds it. On a CPU, where the network needs the cores and decoding takes a
    few percent of the time, a quarter: none on a small machine, where the loader then costs neither thread nor copy.
    """
    if wanted != "Auto":
        return int(wanted)
    own = cpus // max(1, local_processes)
    return min(_MOST_WORKERS, max(1, own - 1)) if device == "cuda" else min(_MOST_WORKERS, own // 4)


def compute_threads(*, cpus: int, local_processes: int, workers: int) -> int:
    """Threads of torch's operators in one training process."""
    return max(1, cpus // max(1, local_processes) - workers)


def make_loader(
    images: ImageSet,
    batches: TrainingBatches | EvaluationBatches,
    collate: Callable[[Sequence[Any]], Any],
    *,
    workers: int,
    device: torch.device,
) -> DataLoader:
    """A loader of `batches`, in order; it reads nothing that a resumed run has consumed already.

    Processes come from a fork server. Forking this process would copy it in the middle of its threads (OpenMP, gloo,
    CUDA), which may hold locks that no one will ever release; spawning would import torch anew in each.
    """
    context = None
    if workers:
        context = torch.multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
    return DataLoader(
        images,  # type: ignore[arg-type]  # map-style, by SampleRef
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context=context,
        pin_memory=device.type == "cuda",
        prefetch_factor=2 if workers else None,
        worker_init_fn=begin if workers else None,
    )


def begin(_: int) -> None:
    """In a loader process. A SIGTERM to the group is for the training process, which needs its loader until the last step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watchdog.answer()
