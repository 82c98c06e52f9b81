"""An optimizer step whose micro-batches go through a pipeline of processes."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from darkroom_api.v1alpha1.parallelism import PipelineSchedule
from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.course import Course
from darkroom_trainer.data.sampler import Plan, derive_seed
from darkroom_trainer.feed import Feed
from darkroom_trainer.host import Host
from darkroom_trainer.pipelined import Pipelined
from darkroom_trainer.stages import Stage
from darkroom_trainer.state import Learner
from darkroom_trainer.step import Stepper
from darkroom_trainer.tasks.base import Batch

_SCHEDULES = {PipelineSchedule.GPIPE: ScheduleGPipe, PipelineSchedule.ONE_F_ONE_B: Schedule1F1B}


class Part(nn.Module):
    """The stages of this process, as the schedule calls them. step: the optimizer step that draws are keyed by."""

    def __init__(
        self,
        stages: Sequence[tuple[int, Stage]],
        feed: Feed,
        course: Course,
        *,
        seed: int,
    ) -> None:
        super().__init__()
        self.modules_ = nn.ModuleList(module for _, stage in stages for module in stage.modules)
        self._stages, self._feed, self._course, self._seed = stages, feed, course, seed
        self._dtype = feed.precision.dtype or torch.float32
        self.step = 0

    def forward(self, images: torch.Tensor, *, micro_batch: int) -> torch.Tensor:
        """Dropout is that of the step, the micro-batch and the stage, however the network is cut."""
        if images.ndim == 4:
            images = images.contiguous(memory_format=self._feed.memory_format)
        with self._course.statistics.micro_batch(), self._feed.precision.autocast():
            for number, stage in self._stages:
                torch.manual_seed(derive_seed(self._seed, self.step, micro_batch, number))
                images = stage(images)
        return images.to(self._dtype).contiguous()


class PipelineStepper(Stepper):
    """The first process knows the images, the last one the labels; the loss is the last one's to count."""

    def __init__(self, vision: Vision, host: Host, feed: Feed, plan: Plan, learner: Learner, course: Course) -> None:
        super().__init__(vision, host, feed, plan, learner, course)
        layout = learner.layout
        if not isinstance(layout, Pipelined):
            raise TypeError(f"{type(layout).__name__} is no pipeline")
        self._layout, self._batches = layout, dict[int, Batch]()
        held = list(zip(layout.own, layout.held(learner.model), strict=True))
        self._part = Part(held, feed, course, seed=vision.seed)
        self._turns = layout.turns(plan)
        stage = PipelineStage(
            self._part,
            layout.place_in_line,
            layout.depth,
            host.group.device,
            input_args=self._example(layout.own.start),
            output_args=self._example(layout.own.stop),
            group=layout.line,
        )
        schedule = _SCHEDULES[PipelineSchedule(vision.parallelism.schedule)]
        self._first, self._last = stage.is_first, stage.is_last
        self._schedule = schedule(stage, len(self._turns), loss_fn=self._loss, scale_grads=False)

    def _example(self, before: int) -> torch.Tensor:
        """What travels before a stage, and back as its gradient: the shape is known, so nothing has to be asked for."""
        dtype = torch.float32 if before == 0 else self._feed.precision.dtype or torch.float32
        shape, device = self._layout.shapes[before], self._host.group.device
        return torch.empty(shape, dtype=dtype, device=device, requires_grad=before > 0)

    def _accumulate(self, step: int) -> None:
        self._part.step, turns = step, self._turns
        self._batches = {micro_batch: self._next_batch() for micro_batch in self._share}
        self._schedule.step(
            arg_mbs=[(self._images(micro_batch),) if self._first else () for micro_batch in turns],
            kwarg_mbs=[{"micro_batch": micro_batch} for micro_batch in turns],
            target_mbs=[torch.tensor(micro_batch) for micro_batch in turns] if self._last else None,
            return_outputs=False,
        )
        with self._host.clock.spend("communication"):
            self._layout.exchange(self._learner.model)

    def _images(self, micro_batch: int) -> torch.Tensor:
        """What the task would give the network."""
        asked = _Asked()
        try:
            self._task_loss(asked, micro_batch)
        except _Enough:
            return asked.images.contiguous()
        raise TypeError("a task's loss must call the network")

    def _loss(self, logits: torch.Tensor, micro_batch: torch.Tensor) -> torch.Tensor:
        number = int(micro_batch)
        loss, batch = self._task_loss(_Given(logits), number), self._batches[number]
        self.sums[:2] += torch.stack([loss.detach().double(), batch.valid.sum().double()])
        return loss / self._plan.batch

    def _task_loss(self, network: nn.Module, micro_batch: int) -> torch.Tensor:
        """With the same draws for MixUp on the first process and on the last."""
        self._generator.manual_seed(derive_seed(self._vision.seed, self._part.step, micro_batch))
        with self._feed.precision.autocast():
            return self._feed.task.loss(network, self._batches[micro_batch], generator=self._generator)


class _Enough(Exception):  # noqa: N818
    """The images are known."""


class _Asked(nn.Module):
    """Stands in for the network where only its input is wanted."""

    images: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images = images
        raise _Enough


class _Given(nn.Module):
    """Stands in for the network where its answer is known."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self._logits = logits

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self._logits
