"""The training loop."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from darkroom_api.report import Action, Artifact, ExitCode, Reason, TerminationMessage
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.checkpoint import Checkpoints, Parcel, Saved
from darkroom_trainer.clock import Throughput, eta, now
from darkroom_trainer.corrupt import CorruptFiles
from darkroom_trainer.data.loader import make_loader
from darkroom_trainer.data.sampler import Plan, TrainingBatches, derive_seed, share
from darkroom_trainer.ema import Ema
from darkroom_trainer.errors import DataError, DivergenceError, StorageError
from darkroom_trainer.evaluate import Evaluator
from darkroom_trainer.host import Host
from darkroom_trainer.optim import Precision, configure_torch, make_optimizer, memory_format, set_learning_rate
from darkroom_trainer.parallel import Pulse, Replica, RunningStatistics
from darkroom_trainer.report import Reporter, decimal
from darkroom_trainer.schedule import LearningRate
from darkroom_trainer.state import Best, Learner, Progress, check_identity, identity
from darkroom_trainer.tasks.base import Batch, Task

log = logging.getLogger(__name__)


def train(config: TrainerConfig, task: Task, host: Host | None = None) -> TerminationMessage:
    """Train to the end of the schedule, or until a process of the group is told to leave; how it ended.

    Continues from the newest checkpoint in the run's folder, on any number of processes. Raises TrainerError.
    """
    run = Run(config, task, host or Host())
    while True:
        if run.owes_evaluation() and not run.evaluate_epoch():
            return run.leave()
        if run.progress.step == run.plan.steps:
            return run.finish()
        run.train_step()
        if run.beat():
            return run.leave()


class Run:
    """A run on this process: what `train` does in each line."""

    def __init__(self, config: TrainerConfig, task: Task, host: Host) -> None:
        self.config, self.vision, self.task = config, config.vision, task
        self.group, self.clock, self.host = host.group, host.clock, host
        self.report = Reporter(host.message, run_dir=Path(config.run_dir), speaks=self.group.leads)
        self.checkpoints = Checkpoints(Path(config.run_dir) / "checkpoints", keep=config.checkpoint.keep)
        self.workers = configure_torch(self.vision, self.group)
        self.group.share(self.checkpoints.open)
        self.splits = task.splits()
        with self.clock.spend("restore"):
            parcel = self.group.share(self.checkpoints.newest)
        self._plan(parcel)
        self.learner = self._make_learner()
        self.progress = Progress()
        if parcel:
            with self.clock.spend("restore"):
                self.progress = self.learner.restore(parcel)
        self._make_loop()
        self._announce(parcel.saved if parcel else None)
        self.clock.switch("compute")
        host.began()

    # --- Setting up ---

    def _plan(self, parcel: Parcel | None) -> None:
        """Micro-batches are those of the run's first start: the run is then the same on any number of processes."""
        batch = self.vision.batch_size
        micro_batch = self.vision.micro_batch_size or math.ceil(batch / self.group.world)
        if parcel:
            micro_batch = parcel.manifest.identity["microBatch"]
        fingerprint = self.task.fingerprint()
        if len(set(self.group.gather(fingerprint))) > 1:
            raise DataError(
                "the processes see different files: their volumes differ, or the data change while they start"
            )
        self.identity = identity(self.vision, fingerprint=fingerprint, micro_batch=micro_batch)
        if parcel:
            check_identity(parcel.manifest.identity, self.identity, run_dir=self.config.run_dir)
        self.plan = Plan(len(self.splits["train"]), batch, micro_batch, self.vision.schedule.epochs, self.vision.seed)
        self.share = share(self.plan.micro_batches, self.group.rank, self.group.world)

    def _make_learner(self) -> Learner:
        device = self.group.device
        self.precision = Precision.of(self.vision, device)
        model = self.task.build_model()
        self.memory_format = memory_format(self.vision, model, device)
        model = model.to(device, memory_format=self.memory_format).train()
        ema = Ema(model, decay=float(self.vision.ema.decay), batch=self.plan.batch) if self.vision.ema else None
        return Learner(model, make_optimizer(model, self.vision.optimizer, device=device), self.precision.scaler(), ema)

    def _make_loop(self) -> None:
        model, vision = self.learner.model, self.vision
        self.replica = Replica(self.task, model, self.group)
        self.statistics = RunningStatistics(model, self.group)
        self.rate = LearningRate.of(
            vision.schedule,
            peak=float(vision.optimizer.learning_rate),
            steps=self.plan.steps,
            steps_per_epoch=self.plan.steps_per_epoch,
        )
        sizes = {name: len(images) for name, images in self.splits.items()}
        limit = float(vision.data.max_corrupt_fraction)
        self.corrupt = CorruptFiles(sizes, limit=limit, group=self.group, say=self.report.say)
        self.corrupt.restore(self.progress.corrupt)
        self.evaluator = Evaluator(
            self.task,
            self.group,
            batch=self.plan.micro_batch,
            workers=self.workers,
            precision=self.precision,
            memory_format=self.memory_format,
            corrupt=self.corrupt,
            alive=self.host.alive,
        )
        self.batches = self._training_batches()
        self.generator = torch.Generator()
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.group.device)  # loss, valid samples
        self.pulse, self.throughput = Pulse(self.group), Throughput()
        self.evaluation_seconds: list[float] = []
        self.saved: Saved | None = None
        self.saved_at, self.saved_state = now(), (self.progress.step, self.progress.evaluated)

    def _training_batches(self) -> Iterator[Batch]:
        batches = TrainingBatches(self.plan, rank=self.group.rank, world=self.group.world, start=self.progress.step)
        workers = self.workers if len(batches) else 0
        return iter(
            make_loader(self.splits["train"], batches, self.task.collate, workers=workers, device=self.group.device)
        )

    def _announce(self, resumed: Saved | None) -> None:
        plan, progress, message = self.plan, self.progress, self.host.message
        message.epochs, message.steps, message.step = plan.epochs, plan.steps, progress.step
        message.epoch = plan.epochs_done(progress.step)
        if not progress.worlds or progress.worlds[-1][1] != self.group.world:
            progress.worlds.append([progress.step, self.group.world])
        device = torch.cuda.get_device_name(self.group.device) if self.group.device.type == "cuda" else "CPU"
        self.report.say(
            f"{plan.samples} images, {plan.epochs} epochs = {plan.steps} steps of {plan.batch} images in "
            f"{plan.micro_batches} micro-batches on {self.group.world} process(es), {device}, "
            f"{self.workers} loader process(es) each"
        )
        if plan.micro_batches < self.group.world:
            self.report.say(
                f"{self.group.world - plan.micro_batches} process(es) have nothing to do: a step has only "
                f"{plan.micro_batches} micro-batches; a smaller vision.microBatchSize from the start gives all of them work"
            )
        if resumed:
            self.saved, message.resumed_step = resumed, progress.step
            self._keep_checkpoint(resumed)
            self.report.event("resumed", f"resumed at step {progress.step}", step=progress.step, world=self.group.world)
            if progress.best:
                self.report.keep_best(f"val/{self.task.best_metric}", progress.best.value, progress.best.epoch)
                self.report.keep_metrics(progress.best.metrics)
        self.host.publish()
        self.host.tell(None)

    # --- A step ---

    def train_step(self) -> None:
        """One optimizer step on one global batch."""
        set_learning_rate(self.learner.optimizer, self.rate.at(self.progress.step))
        self.statistics.begin_step()
        for micro_batch in self.share or [None]:
            self._backward(micro_batch, last=micro_batch is None or micro_batch == self.share[-1])
        with self.clock.spend("communication"):
            self.statistics.end_step(self.plan.micro_batches)
        self._update()
        self.progress.step += 1
        self.host.alive()

    def _backward(self, micro_batch: int | None, *, last: bool) -> None:
        """Add a micro-batch's part to the gradient, which is the sum over valid samples divided by the global batch."""
        batch = None if micro_batch is None else self._next_batch()
        seed = derive_seed(self.vision.seed, self.progress.step, -1 if micro_batch is None else micro_batch)
        torch.manual_seed(seed)  # of the device too: dropout is that of the micro-batch, wherever it is computed
        self.generator.manual_seed(seed)
        with self.replica.accumulating(last=last):
            with self.precision.autocast():
                if batch is None:
                    loss = self.replica.forward(None, self.generator)
                else:
                    with self.statistics.micro_batch():
                        loss = self.replica.forward(batch, self.generator)
            self.learner.scaler.scale(loss * (self.replica.loss_scale / self.plan.batch)).backward()
        if batch is not None:
            self.sums += torch.stack([loss.detach().double(), batch.valid.sum().double()])

    def _next_batch(self) -> Batch:
        with self.clock.spend("dataWait"):
            batch = next(self.batches)
        self.corrupt.note("train", batch.corrupt)
        return batch.to(self.group.device, self.memory_format)

    def _update(self) -> None:
        learner, clip = self.learner, self.vision.optimizer.clip_norm
        if clip is not None:
            learner.scaler.unscale_(learner.optimizer)
            torch.nn.utils.clip_grad_norm_(learner.model.parameters(), float(clip))
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()
        learner.optimizer.zero_grad()
        if learner.ema:
            learner.ema.update(learner.model)

    # --- What the processes tell each other, and the user ---

    def beat(self) -> bool:
        """Now and then, and before an evaluation: exchange, report, save; whether it is time to leave."""
        due = self.pulse.tick()
        if not (due or self.owes_evaluation() or self.progress.step == self.plan.steps):
            return False
        with self.clock.spend("communication" if self.group.device.type == "cpu" else "compute"):
            beat = self.pulse.beat(self.sums, stop=self.host.stop(), news=self.corrupt.news)
        loss_sum, valid = beat.sums
        self.clock.move("compute", "communication", self.replica.exposed_seconds() * beat.ticks)
        loss = loss_sum / max(1.0, valid)
        if not math.isfinite(loss_sum):
            raise DivergenceError(self._divergence(beat.ticks))
        if beat.news:
            self.corrupt.exchange()
        self.throughput.add(beat.ticks * self.plan.batch, beat.seconds)
        self._report_progress(loss)
        if self.group.leads and not beat.stop and now() - self.saved_at >= self.config.checkpoint.every_seconds:
            self._save()
        self.pulse.restart()
        return beat.stop

    def _divergence(self, ticks: int) -> str:
        step = self.progress.step
        return (
            f"the loss stopped being a number between steps {step - ticks + 1} and {step}, at learning rate "
            f"{self.rate.at(step - 1):.3g}: lower vision.optimizer.learningRate, or set vision.optimizer.clipNorm"
        )

    def _report_progress(self, loss: float) -> None:
        plan, step, message = self.plan, self.progress.step, self.host.message
        rate = self.throughput.images_per_second
        per_evaluation = median(self.evaluation_seconds) if self.evaluation_seconds else 0.0
        left = eta(
            (plan.steps - step) * plan.batch, self.throughput, (plan.epochs - self.progress.evaluated) * per_evaluation
        )
        metrics = {"train/loss": loss}
        message.step, message.epoch = step, plan.epochs_done(step)
        message.images_per_second = decimal(rate) if rate else None
        message.time = self.clock.seconds()
        self.report.keep_metrics(metrics)
        facts = {
            "epoch": min(plan.epochs, plan.epochs_done(step - 1) + 1),
            "epochs": plan.epochs,
            "step": step,
            "steps": plan.steps,
            "world": self.group.world,
            "learningRate": self.rate.at(step - 1),
            "imagesPerSecond": rate and round(rate, 1),
            "etaSeconds": left and round(left.seconds, 1),
            "time": {bucket: round(seconds, 3) for bucket, seconds in message.time.items()},
        }
        self.report.progress(metrics=metrics, always=step == plan.steps, **facts)
        self.host.publish()
        self.host.tell(left)

    # --- Evaluation ---

    def owes_evaluation(self) -> bool:
        """Whether an epoch has ended whose evaluation is not done: now, or before the checkpoint was written."""
        return self.plan.epochs_done(self.progress.step) > self.progress.evaluated

    def evaluate_epoch(self) -> bool:
        """Measure on `val`, keep the weights if they are the best so far; False if told to leave meanwhile."""
        began, progress = now(), self.progress
        metrics = self._evaluate("val")
        if metrics is None:
            return False
        progress.evaluated = self.plan.epochs_done(progress.step)
        value = metrics[self.task.best_metric]
        better = progress.best is None or value > progress.best.value or math.isnan(progress.best.value)
        if better:
            named = {f"val/{name}": v for name, v in metrics.items()}
            progress.best = Best(value, progress.evaluated, progress.step, named)
            self.report.keep_best(f"val/{self.task.best_metric}", value, progress.evaluated)
            self._save_best()
        self.evaluation_seconds.append(now() - began)
        self.report.evaluation(
            "val", metrics, epoch=progress.evaluated, step=progress.step, best=better, seconds=now() - began
        )
        self.host.publish()
        self.host.tell(None)
        self.pulse.restart()
        return True

    def _evaluate(self, split: str) -> dict[str, float] | None:
        with self.clock.spend("evaluation"):
            metrics = self.evaluator.measure(self.learner.judged, split, self.splits[split], stop=self.host.stop)
            self.learner.model.train()
            return metrics

    # --- Checkpoints and endings ---

    def _save(self) -> Saved:
        """Rank 0's alone; the last one again if nothing has happened since."""
        state = (self.progress.step, self.progress.evaluated)
        if self.saved and self.saved_state == state:
            return self.saved
        self.progress.corrupt = self.corrupt.known()
        with self.clock.spend("checkpoint"):
            self.saved = self.checkpoints.save(
                self.progress.step,
                self.learner.tensors(),
                self.learner.counters(self.progress),
                identity=self.identity,
                best_step=self.progress.best.step if self.progress.best else None,
            )
        self.saved_at, self.saved_state = now(), state
        self._keep_checkpoint(self.saved)
        self.report.event("saved", f"saved {self.saved.folder.name}", step=self.saved.step)
        return self.saved

    def _save_best(self) -> None:
        if self.group.leads:
            with self.clock.spend("checkpoint"):
                self.checkpoints.save_best(self.progress.step, self.learner.best_tensors(), identity=self.identity)

    def _keep_checkpoint(self, saved: Saved) -> None:
        self.report.keep_checkpoint(f"checkpoints/{saved.folder.name}", saved.sha256, saved.step)

    def _save_for_all(self) -> None:
        """Save, and wait until rank 0 has: nobody leaves before the checkpoint is on the disk."""
        with self.clock.spend("checkpoint"):
            self._keep_checkpoint(self.group.share(self._save))

    def leave(self) -> TerminationMessage:
        """A checkpoint, then out, in the way that was asked for; every process at the same step."""
        self._save_for_all()
        way = self.group.share(
            self.host.leaving
        )  # a signal may reach any process, a command of the operator rank 0 alone
        self.report.say(f"leaving at step {self.progress.step}, as asked ({way})")
        if way == Action.STOP:
            return self.finish_early()
        if way == Action.PRUNE:
            return self._end(Reason.PRUNED, ExitCode.DONE)
        return self._end(Reason.ASKED_TO_LEAVE, ExitCode.ASKED_TO_LEAVE)

    def finish_early(self) -> TerminationMessage:
        """As after the last epoch, with what was learnt so far."""
        if (self.owes_evaluation() or self.progress.best is None) and not self.evaluate_epoch():
            return self.leave()
        return self.finish(Reason.BUDGET_SPENT)

    def finish(self, reason: Reason = Reason.COMPLETED) -> TerminationMessage:
        """Measure the best epoch's weights on `test`, once, and export them."""
        self._save_for_all()
        best = self.progress.best
        if best is None:
            raise StorageError(f"{self.config.run_dir}: the run is complete, but no epoch was evaluated")
        with self.clock.spend("restore"):
            parcel = self.group.share(lambda: self.checkpoints.best(best.step))
            self.learner.judged.load_state_dict(parcel.tensors("model."))
        metrics = dict(best.metrics)
        if "test" in self.splits:
            began, test = now(), self._evaluate("test")
            if test is None:
                return self.leave()
            self.report.evaluation("test", test, epoch=best.epoch, step=best.step, best=False, seconds=now() - began)
            metrics = {f"test/{name}": value for name, value in test.items()} | metrics
        self.report.keep_metrics(metrics)
        with self.clock.spend("other"):
            self.host.message.model = self.group.share(lambda: self._export(metrics))
        return self._end(reason, ExitCode.DONE)

    def _export(self, metrics: dict[str, float]) -> Artifact:
        from darkroom_trainer.export import export_model

        folder = Path(self.config.run_dir) / "model"
        artifact = export_model(self.learner.judged, folder, description=self.task.describe(), metrics=metrics)
        self.report.event("exported", f"exported {folder}", path=artifact.path, sha256=artifact.sha256)
        return artifact

    def _end(self, reason: Reason, exit_code: ExitCode) -> TerminationMessage:
        self.clock.switch("other")
        message = self.host.message
        message.reason, message.exit_code = reason, int(exit_code)
        message.step, message.epoch = self.progress.step, self.plan.epochs_done(self.progress.step)
        message.time = self.clock.seconds()
        return message
