"""An optimizer step on one global batch: what this process does of it."""

from contextlib import nullcontext

import torch

from darkroom_api.v1alpha1.vision import Vision
from darkroom_trainer.course import Course
from darkroom_trainer.data.resize import resized
from darkroom_trainer.data.sampler import Plan, derive_seed
from darkroom_trainer.feed import Feed
from darkroom_trainer.host import Host
from darkroom_trainer.optim import set_learning_rate
from darkroom_trainer.state import Learner
from darkroom_trainer.stragglers import Stopwatch
from darkroom_trainer.tasks.base import Batch


class Stepper:
    """sums: float64 [2 + world] on the device, zeroed by whoever reads them: loss and valid samples of this process, and
    its time in its own place, as `note_time` puts it there.
    """

    def __init__(self, vision: Vision, host: Host, feed: Feed, plan: Plan, learner: Learner, course: Course) -> None:
        self._vision, self._host, self._feed, self._plan = vision, host, feed, plan
        self._learner, self._course = learner, course
        self._share = learner.layout.share(plan)
        self._generator = torch.Generator()
        self.sums = torch.zeros(2 + host.group.world, dtype=torch.float64, device=host.group.device)
        self._watch, self._watched = Stopwatch(host.group.device), 0

    def take(self, step: int, learning_rate: float, size: int | None) -> None:
        """Step number `step`, counted from 0, on images of `size` pixels a side; None: as they come."""
        self._size = size
        set_learning_rate(self._learner.optimizer, learning_rate)
        statistics = self._course.statistics
        statistics.begin_step()
        self._accumulate(step)
        with self._host.clock.spend("communication"):
            statistics.end_step(self._plan.micro_batches)
        self._update(step)

    def note_time(self) -> None:
        """Seconds per micro-batch that this process needs by itself, since it last told."""
        self.sums[2 + self._host.group.rank] = self._watch.read() / max(1, self._watched)
        self._watched = 0

    def _accumulate(self, step: int) -> None:
        """Forward and backward through this process's share of the step."""
        for micro_batch in self._share or [None]:
            self._backward(step, micro_batch, last=micro_batch is None or micro_batch == self._share[-1])

    def _backward(self, step: int, micro_batch: int | None, *, last: bool) -> None:
        """Add a micro-batch's part to the gradient, which is the sum over valid samples divided by the global batch."""
        replica = self._course.replica
        with self._watch.alone():
            batch = None if micro_batch is None else self._next_batch()
        counts = micro_batch is not None and micro_batch < self._plan.micro_batches
        if batch and not counts:
            batch.valid.zero_()
        seed = derive_seed(self._vision.seed, step, -1 if micro_batch is None else micro_batch)
        torch.manual_seed(seed)  # of the device too: dropout is that of the micro-batch, wherever it is computed
        self._generator.manual_seed(seed)
        with replica.accumulating(last=last):
            with self._feed.precision.autocast():
                if batch is None:
                    loss = replica.forward(None, self._generator)
                else:
                    with (
                        self._watch.alone() if replica.independent else nullcontext(),
                        self._course.statistics.micro_batch() if counts else nullcontext(),
                    ):
                        loss = replica.forward(batch, self._generator)
            self._learner.scaler.scale(loss * (replica.loss_scale / self._plan.batch)).backward()
        if batch is not None:
            self._watched += 1
            self.sums[:2] += torch.stack([loss.detach().double(), batch.valid.sum().double()])

    def _next_batch(self) -> Batch:
        with self._host.clock.spend("dataWait"):
            batch = next(self._course.batches)
        self._feed.corrupt.note("train", batch.corrupt)
        placed = self._feed.place(batch)
        return resized(placed, self._size) if self._size else placed

    def _update(self, step: int) -> None:
        learner, clip = self._learner, self._vision.optimizer.clip_norm
        if clip is not None:
            learner.scaler.unscale_(learner.optimizer)
            learner.layout.clip(learner.model, float(clip))
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
        learner.optimizer.zero_grad()
        if learner.ema and learner.ema.is_due(step):
            local = learner.layout.local
            learner.ema.update(local(learner.ema.model), local(learner.model))
