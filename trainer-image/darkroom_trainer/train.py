"""The training loop. `train` is the whole of it; what it calls is below, in the order of use."""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkroom_api.report import Artifact, Best, Reason
from darkroom_api.v1alpha1.vision import MemoryFormat, Precision, TrainerConfig
from darkroom_trainer.checkpoint import Checkpoint, Checkpoints
from darkroom_trainer.clock import Clock, Throughput
from darkroom_trainer.control import AskedToLeave, Control
from darkroom_trainer.data.loader import cpus, make_loader, worker_count
from darkroom_trainer.data.sampler import BatchPlan, MicroBatch, ShardSampler, StepSampler
from darkroom_trainer.errors import ConfigError
from darkroom_trainer.export import export_model
from darkroom_trainer.optim import make_ema, make_optimizer
from darkroom_trainer.parallel import BatchNormStatistics, Replica, World, seed_everything
from darkroom_trainer.report import Facts, RunLog, metric_list, number
from darkroom_trainer.schedule import LearningRate
from darkroom_trainer.tasks.base import Batch, Task


def train(config: TrainerConfig, task: Task, world: World, clock: Clock, facts: Facts) -> None:
    """Train to the end of the schedule, evaluate on `test`, export. Raises AskedToLeave after a checkpoint, or a TrainerError."""
    run = Run(config, task, world, clock, facts)
    run.resume()
    clock.rest("other")
    for step, micro_batches in run.steps():
        run.begin_step(step)
        for micro in micro_batches:
            batch = run.fetch()
            run.forward_backward(step, micro, batch, last=micro is micro_batches[-1])
        run.update(step)
        if run.plan.samples_in(step) and (step + 1) % run.plan.steps_per_epoch == 0:
            run.evaluate_epoch(step + 1)
        run.keep_in_touch(step + 1)
    run.finish()


@dataclass
class Progress:
    """What a checkpoint remembers besides weights and optimizer."""

    step: int = 0
    evaluated_epoch: int = 0
    best: Best | None = None
    last_metrics: dict[str, float] | None = None


class Run:
    """The parts of one training on one process, and the verbs of the loop."""

    def __init__(self, config: TrainerConfig, task: Task, world: World, clock: Clock, facts: Facts) -> None:
        self.config, self.task, self.world, self.clock, self.facts = config, task, world, clock, facts
        vision = config.vision
        run_dir = Path(config.run_dir)
        torch.set_num_threads(max(1, cpus() // world.local_size))
        torch.use_deterministic_algorithms(vision.deterministic)
        torch.backends.cudnn.benchmark = not vision.deterministic
        self.checkpoints = Checkpoints(run_dir, config.checkpoint.keep)
        if world.first:
            self.checkpoints.prepare()
        world.barrier()
        self.log = RunLog(run_dir, first=world.first)
        self.splits = task.splits()
        seed_everything([vision.seed])
        self.memory_format = memory_format(vision.memory_format, world.device)
        self.model = task.build_model().to(world.device, memory_format=self.memory_format)
        self.optimizer = make_optimizer(vision.optimizer, self.model, world.device)
        self.ema = make_ema(vision.ema, self.model, vision.batch_size)
        self.statistics = BatchNormStatistics(self.model, world)
        self.dtype = forward_dtype(vision.precision, world.device)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.dtype == torch.float16)
        self.clip = float(vision.optimizer.clip_norm) if vision.optimizer.clip_norm else math.inf
        self.workers = worker_count(vision.workers, world.local_size)
        self.progress, self.resumed_step = Progress(), None
        self.throughput = Throughput()
        self._loaders: dict[str, Any] = {}

    # --- resume ---

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one, and lay out the run from there."""
        with self.clock.spend("restore"):
            newest = self.checkpoints.newest() if self.world.first else None
            step = self.world.share(newest.step if newest else None)
            micro_batch = self._restore(self.checkpoints.at(step)) if step is not None else self._first_micro_batch()
        vision = self.config.vision
        self.plan = BatchPlan(
            len(self.splits["train"]), vision.batch_size, micro_batch, vision.schedule.epochs, vision.seed
        )
        self.rate = LearningRate.of(vision.schedule, self.plan.steps_per_epoch)
        self.replica = Replica(self.model, self.world, time.perf_counter)
        self.control = Control(self.config, self.world, self.plan, len(self.splits["train"]))
        self.log.note(
            f"{len(self.splits['train'])} training images, {self.plan.total_steps} steps of {vision.batch_size} in "
            f"micro-batches of {micro_batch} on {self.world.size} processes ({self.world.device.type}, {self.workers} loader "
            f"workers each); " + (f"resuming at step {step}" if step is not None else "from the beginning")
        )
        self._tell_progress()

    def _first_micro_batch(self) -> int:
        """Fixed by the first start, and kept when the number of processes changes."""
        vision = self.config.vision
        return vision.micro_batch_size or math.ceil(vision.batch_size / self.world.size)

    def _restore(self, checkpoint: Checkpoint) -> int:
        weights, state = checkpoint.load()
        self._check_same_run(checkpoint, state)
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")})
        if self.ema:
            self.ema.module.load_state_dict(
                {k.removeprefix("ema."): v for k, v in weights.items() if k.startswith("ema.")}
            )
            self.ema.n_averaged.fill_(state["emaUpdates"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        best = Best(**state["best"]) if state["best"] else None
        self.progress = Progress(state["step"], state["evaluatedEpoch"], best, state["lastMetrics"])
        self.resumed_step = state["step"]
        return int(state["microBatch"])

    def _check_same_run(self, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        """Another data set or recipe in the same folder must not go on as if nothing had happened."""
        for name, now in self._identity().items():
            if state["identity"].get(name) != now:
                raise ConfigError(
                    f"{name} differs from that of {checkpoint.folder} (now {now!r}, then {state['identity'].get(name)!r}): "
                    "give the new run a folder of its own"
                )

    def _identity(self) -> dict[str, Any]:
        vision = self.config.vision
        return {
            "data": self.task.fingerprint(),
            "vision.model.architecture": vision.model.architecture,
            "vision.imageSize": vision.image_size,
            "vision.batchSize": vision.batch_size,
            "vision.schedule.epochs": vision.schedule.epochs,
            "vision.seed": vision.seed,
            "vision.optimizer.name": vision.optimizer.name,
            "vision.ema": vision.ema is not None,
        }

    # --- one step ---

    def steps(self) -> Iterator[tuple[int, list[MicroBatch]]]:
        """Steps that are left, with this process's micro-batches; the loader runs ahead in the same order."""
        if self.progress.step and self.progress.step % self.plan.steps_per_epoch == 0:
            self.evaluate_epoch(self.progress.step)  # interrupted between the last step of an epoch and its evaluation
        sampler = StepSampler(
            self.plan, rank=self.world.rank, world_size=self.world.size, first_step=self.progress.step
        )
        loader = make_loader(self.splits["train"], self.task, sampler, workers=self.workers, device=self.world.device)
        self.batches = iter(loader)
        self.model.train()
        yield from sampler.steps()

    def fetch(self) -> Batch:
        """The next batch, on the device."""
        with self.clock.spend("dataWait"):
            batch: Batch = next(self.batches)
        self.control.saw_corrupt(batch.corrupt)
        return batch.to(self.world.device, self.memory_format)

    def begin_step(self, step: int) -> None:
        """Learning rate, clean gradients, statistics of their own."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.config.vision.optimizer.learning_rate) * self.rate.factor(step)
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.begin_step()

    def forward_backward(self, step: int, micro: MicroBatch, batch: Batch, *, last: bool) -> None:
        """Gradients of one micro-batch; the global batch's mean loss, whoever computes which part of it."""
        with self.clock.spend("compute"), self.replica.accumulating(last=last):
            generator = torch.Generator().manual_seed(self.config.vision.seed + 7919 * step + micro.number)
            seed_everything([self.config.vision.seed, step, micro.number])
            with self._autocast():
                loss = self.task.loss(self.replica.model, batch, generator=generator)
            if micro.filler:
                loss = loss * 0.0
            # DDP averages over processes: the factor makes that a sum
            scaled = loss * (self.world.size / self.plan.samples_in(step))
            waited = self.replica.backward(self.scaler.scale(scaled), last=last)
            self.statistics.add(0.0 if micro.filler else float(len(micro.samples)))
            self.control.saw_loss(loss.detach(), 0 if micro.filler else len(micro.samples))
        self.clock.move(waited, "compute", "communication")

    def update(self, step: int) -> None:
        """Statistics, clipping, the step itself, the moving average."""
        with self.clock.spend("communication"):
            self.statistics.end_step()
        with self.clock.spend("compute"):
            self.scaler.unscale_(self.optimizer)
            if self.clip < math.inf:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip, foreach=True)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.ema:
                self.ema.update_parameters(self.model)
        self.progress.step = step + 1

    def _autocast(self) -> Any:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=self.dtype)

    # --- now and then ---

    def keep_in_touch(self, done: int) -> None:
        """Every few steps one small exchange: losses, corrupt files, the wish to leave; then log, save, or go."""
        if not self.control.due(done):
            return
        with self.clock.spend("communication"):
            word = self.control.exchange(done)
        if word.images:
            self.throughput.add(word.images, word.seconds)
            self.log.interval(
                epoch=done / self.plan.steps_per_epoch,
                epochs=self.config.vision.schedule.epochs,
                step=done,
                steps=self.plan.total_steps,
                loss=word.loss,
                lr=self.optimizer.param_groups[0]["lr"],
                imagesPerSecond=round(self.throughput.images_per_second, 1),
                etaSeconds=round(self.eta_seconds(done)),
            )
        self._tell_progress()
        if word.leave or word.save:
            self.save()
        if word.leave:
            raise AskedToLeave(done)

    def eta_seconds(self, done: int) -> float:
        """Seconds to the end of the schedule at the present speed."""
        rate = self.throughput.images_per_second
        epochs_left = (self.plan.total_steps - done) / self.plan.steps_per_epoch
        return epochs_left * self.plan.size / rate if rate else 0.0

    def save(self) -> None:
        """A checkpoint; the others wait, so that nobody leaves before it is there."""
        with self.clock.spend("checkpoint"):
            if self.world.first:
                saved = self.checkpoints.save(self.progress.step, self._weights(), self._state())
                self.facts.update(checkpoint=saved, checkpoint_step=self.progress.step)
            self.world.barrier()
        self.control.saved()

    def _weights(self) -> dict[str, torch.Tensor]:
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.ema:
            weights |= {f"ema.{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        return weights

    def _state(self) -> dict[str, Any]:
        best = self.progress.best
        return {
            "step": self.progress.step,
            "evaluatedEpoch": self.progress.evaluated_epoch,
            "best": best.model_dump() if best else None,
            "lastMetrics": self.progress.last_metrics,
            "microBatch": self.plan.micro_batch_size,
            "identity": self._identity(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "emaUpdates": int(self.ema.n_averaged) if self.ema else 0,
            "worldSize": self.world.size,
        }

    # --- evaluation and the end ---

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the moving average where there is one."""
        return self.ema.module if self.ema else self.model

    def evaluate_epoch(self, done: int) -> None:
        """Measure `val`, once per epoch, and keep the best weights."""
        epoch = done // self.plan.steps_per_epoch
        if epoch <= self.progress.evaluated_epoch:
            return
        metrics = {f"val/{name}": value for name, value in self.measure("val", epoch).items()}
        self.progress.evaluated_epoch, self.progress.last_metrics = epoch, metrics
        name = f"val/{self.task.best_metric}"
        if self.progress.best is None or metrics[name] > float(self.progress.best.value):
            self.progress.best = Best(metric=name, value=number(metrics[name]), epoch=epoch)
            with self.clock.spend("checkpoint"):
                if self.world.first:
                    self.checkpoints.save_best(self.evaluated.state_dict(), {"epoch": epoch})
        self.facts.update(best=self.progress.best, metrics=metric_list(metrics))

    def measure(self, split: str, epoch: int) -> dict[str, float]:
        """Metrics over a whole split, each sample counted once at any number of processes."""
        with self.clock.spend("evaluation"):
            images, model = self.splits[split], self.evaluated
            was_training = model.training
            model.eval()
            totals = self.task.new_totals(self.world.device)
            with torch.inference_mode():
                for batch in self._loader(split):
                    self.control.saw_corrupt(batch.corrupt)
                    with self._autocast():
                        self.task.evaluate(model, batch.to(self.world.device, self.memory_format), totals)
            model.train(was_training)
            metrics = self.task.metrics(self.world.sum(totals))
            self.log.evaluation(split, epoch, metrics | {"images": len(images)})
        return metrics

    def _loader(self, split: str) -> Any:
        if split not in self._loaders:
            size = self.config.vision.micro_batch_size or math.ceil(self.config.vision.batch_size / self.world.size)
            sampler = ShardSampler(len(self.splits[split]), size, rank=self.world.rank, world_size=self.world.size)
            workers = min(self.workers, len(sampler) // 4)  # a handful of batches is not worth a process
            self._loaders[split] = make_loader(
                self.splits[split], self.task, sampler, workers=workers, device=self.world.device
            )
        return self._loaders[split]

    def finish(self) -> None:
        """Save, take the best weights, measure `test` once, export."""
        self.save()
        best = self.checkpoints.best()
        if best is not None:
            self.evaluated.load_state_dict(best)
        epoch = self.progress.best.epoch if self.progress.best else self.config.vision.schedule.epochs
        metrics = dict(self.progress.last_metrics or {})
        if "test" in self.splits:
            metrics = {f"test/{name}": value for name, value in self.measure("test", epoch).items()} | metrics
        self.control.check_corrupt()
        with self.clock.spend("checkpoint"):
            model = self._export(metrics) if self.world.first else None
            self.world.barrier()
        self.facts.update(model=model, metrics=metric_list(metrics), reason=Reason.COMPLETED, exit_code=0)
        self.log.close()

    def _export(self, metrics: dict[str, float]) -> Artifact:
        folder = Path(self.config.run_dir) / "model"
        artifact = export_model(self.evaluated, folder, description=self.task.describe(), metrics=metrics)
        return Artifact(path=artifact.path, sha256=artifact.sha256)

    def _tell_progress(self) -> None:
        self.facts.update(
            epoch=self.progress.step // self.plan.steps_per_epoch,
            epochs=self.config.vision.schedule.epochs,
            step=self.progress.step,
            steps=self.plan.total_steps,
            images_per_second=number(self.throughput.images_per_second) if self.throughput.images_per_second else None,
            best=self.progress.best,
            checkpoint_step=self.facts.message.checkpoint_step or self.resumed_step,
            resumed_step=self.resumed_step,
            time=self.clock.seconds(),
        )


def forward_dtype(precision: Precision | str, device: torch.device) -> torch.dtype:
    """Number format of the forward pass; ConfigError where the device has no such thing."""
    if precision == Precision.AUTO:
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == Precision.FLOAT16 and device.type != "cuda":
        raise ConfigError("vision.precision: Float16 needs a GPU; use Auto, Float32 or BFloat16")
    return {"Float32": torch.float32, "BFloat16": torch.bfloat16, "Float16": torch.float16}[str(precision)]


def memory_format(wanted: MemoryFormat | str, device: torch.device) -> torch.memory_format:
    """Layout of images and convolution weights."""
    channels_last = wanted == MemoryFormat.CHANNELS_LAST or (wanted == MemoryFormat.AUTO and device.type == "cuda")
    return torch.channels_last if channels_last else torch.contiguous_format
