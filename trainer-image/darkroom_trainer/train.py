"""The training loop."""

import math
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from darkroom_api.report import Fidelity, Reason, TerminationMessage
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.checkpoint import Checkpoints, Parcel, Saved
from darkroom_trainer.clock import now
from darkroom_trainer.corrupt import CorruptFiles
from darkroom_trainer.course import Course
from darkroom_trainer.data.sampler import Plan
from darkroom_trainer.ema import Ema
from darkroom_trainer.endings import finish, finish_in_time, leave
from darkroom_trainer.errors import DataError
from darkroom_trainer.evaluate import Evaluator
from darkroom_trainer.feed import Feed
from darkroom_trainer.fit import micro_batch_of
from darkroom_trainer.gate import check, chosen, measure
from darkroom_trainer.host import Host
from darkroom_trainer.keeper import Keeper
from darkroom_trainer.meter import Meter
from darkroom_trainer.optim import Precision, configure_torch, make_optimizer, memory_format
from darkroom_trainer.pace import Pace, TimeBudget
from darkroom_trainer.parallel import Pulse
from darkroom_trainer.report import Reporter, decimal
from darkroom_trainer.state import Best, Learner, Progress, check_identity, identity
from darkroom_trainer.stops import Plateau, check_loss
from darkroom_trainer.stragglers import Stragglers
from darkroom_trainer.strategy import make_layout, make_stepper
from darkroom_trainer.summary.board import Board
from darkroom_trainer.summary.summary import Summary
from darkroom_trainer.tasks.base import Task
from darkroom_trainer.tempo import Tempo


def train(config: TrainerConfig, task: Task, host: Host | None = None) -> TerminationMessage:
    """Train to the end of the schedule, or until a process of the group is told to leave; how it ended.

    Continues from the newest checkpoint in the run's folder, on any number of processes. Raises TrainerError.
    """
    run = Run(config, task, host or Host())
    if run.owes_gate() and not run.pass_gate():
        return leave(run)
    while True:
        if run.owes_evaluation() and not run.evaluate_epoch():
            return leave(run)
        if run.progress.step >= run.pace.end:
            return finish(run) if not run.pace.bent else finish_in_time(run)
        if run.owes_phase() and not run.enter_phase():
            return leave(run)
        if run.plateau.reached:
            return finish(run, Reason.PLATEAU)
        run.train_step()
        if run.beat():
            return leave(run)


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
        recorded = parcel.manifest.identity["microBatch"] if parcel else None
        micro_batch = recorded or micro_batch_of(
            self.vision, self.task, self.splits["train"], self.group, say=self.report.say
        )
        fingerprint = self.task.fingerprint()
        if len(set(self.group.gather(fingerprint))) > 1:
            raise DataError(
                "the processes see different files: their volumes differ, or the data change while they start"
            )
        self.identity = identity(self.vision, fingerprint=fingerprint, micro_batch=micro_batch)
        if parcel:
            check_identity(parcel.manifest.identity, self.identity, run_dir=self.config.run_dir)
        self.plan = Plan(len(self.splits["train"]), batch, micro_batch, self.vision.schedule.epochs, self.vision.seed)

    def _make_learner(self) -> Learner:
        device, vision = self.group.device, self.vision
        model = self.task.build_model()
        self.feed = self._make_feed(model)
        self.layout = make_layout(vision, self.feed, self.plan, model)
        ema = Ema.of(vision.ema, model, batch=self.plan.batch)
        if ema:
            ema.model = self.layout.place(ema.model)
        model = self.layout.place(model).train()
        self.course = Course(
            self.config,
            self.host,
            self.feed,
            self.layout,
            self.plan,
            self.splits,
            model,
            progress=lambda step: self.pace.at(step) / self.plan.steps,
            say=self.report.say,
        )
        optimizer = make_optimizer(self.course.layers.rates(), vision.optimizer, device=device)
        return Learner(model, optimizer, self.feed.precision.scaler(), ema, self.layout)

    def _make_feed(self, model: nn.Module) -> Feed:
        sizes = {name: len(images) for name, images in self.splits.items()}
        limit, device = float(self.vision.data.max_corrupt_fraction), self.group.device
        corrupt = CorruptFiles(sizes, limit=limit, group=self.group, say=self.report.say)
        precision, layout = Precision.of(self.vision, device), memory_format(self.vision, model, device)
        return Feed(self.task, self.group, self.workers, precision, layout, corrupt, self.host.alive)

    def _make_loop(self) -> None:
        self.corrupt = self.feed.corrupt
        self.corrupt.restore(self.progress.corrupt)
        self.pace = Pace.load(self.plan.steps, self.progress.pace)
        self.course.load_blend(self.progress.blend)
        self.budget = TimeBudget(self.config.budget_seconds, used=self.progress.seconds, host=self.host)
        self.evaluator = Evaluator(self.feed, batch=self.plan.micro_batch, reviews=self.vision.summary.html)
        self.stepper = make_stepper(self.vision, self.host, self.feed, self.plan, self.learner, self.course)
        self.keeper = Keeper(self.checkpoints, self.host, self.report, self.learner, identity=self.identity)
        self.plateau = Plateau(self.vision.schedule.early_stop, self.progress, best_metric=self.task.best_metric)
        self.pulse, self.stragglers = Pulse(self.group), Stragglers()
        self.tempo = Tempo(self.plan, {name: len(images) for name, images in self.splits.items()})
        self.meter = Meter(self.clock, self.group, self.plan, self.vision.micro_batch_size)
        self.evaluated_step: int | None = None
        self.summary = Summary(
            Path(self.config.run_dir), self.splits, speaks=self.group.leads and self.vision.summary.html
        )

    def _announce(self, resumed: Saved | None) -> None:
        plan, progress, message = self.plan, self.progress, self.host.message
        message.epochs, message.steps, message.step = plan.epochs, self.pace.end, progress.step
        message.epoch = plan.epochs_done(progress.step)
        if not progress.worlds or progress.worlds[-1][1] != self.group.world:
            progress.worlds.append([progress.step, self.group.world])
        device = torch.cuda.get_device_name(self.group.device) if self.group.device.type == "cuda" else "CPU"
        if self.group.leads and self.vision.summary.tensor_board:
            self.report.board = Board(Path(self.config.run_dir), step=progress.step)
        self.report.opening(
            plan,
            self.config,
            step=progress.step,
            world=self.group.world,
            device=device,
            workers=self.workers,
            carried=self.clock.carried,
        )
        if progress.fidelity:
            message.fidelity = Fidelity(**progress.fidelity)
        if resumed:
            message.resumed_step = progress.step
            self.keeper.resumed(resumed, progress)
            self.report.event("resumed", f"resumed at step {progress.step}", step=progress.step, world=self.group.world)
            if progress.best:
                self.report.keep_best(f"val/{self.task.best_metric}", progress.best.value, progress.best.epoch)
                self.report.keep_metrics(progress.best.metrics)
        self.host.publish()
        self.host.tell(None)

    # --- Before the first step ---

    def owes_gate(self) -> bool:
        """Whether synthetic images are to be measured, and are not yet."""
        return bool(self.vision.synthetic and self.vision.synthetic.gate) and self.progress.fidelity is None

    def pass_gate(self) -> bool:
        """Measure the synthetic images, and raise FidelityError if they will not do; False if told to leave meanwhile."""
        gate = self.vision.synthetic.gate  # type: ignore[union-attr]
        with self.clock.spend("evaluation"):
            sets = chosen(self.task.splits(plain=True), gate.images, self.vision.seed)  # type: ignore[union-attr]
            with self.layout.whole(self.learner.model) as whole:
                found = measure(self.feed, whole, sets, batch=self.plan.micro_batch, stop=self.host.stop)
        if found:
            self.progress.fidelity, self.host.message.fidelity = found.to_wire(), found
            self.report.event("fidelity", f"synthetic images against real ones: {found.to_wire()}", **found.to_wire())
            check(gate, found)  # type: ignore[arg-type]
        return found is not None

    # --- A phase, and a step of it ---

    def owes_phase(self) -> bool:
        return self.course.owes_phase(self.pace.at(self.progress.step))

    def enter_phase(self) -> bool:
        """Open the stages that learn from here on; False if told to leave while their features were computed."""
        entered = self.course.enter(self.progress.step, position=self.pace.at(self.progress.step))
        self.pulse = Pulse(self.group)
        self.tempo.restart()
        return entered

    def train_step(self) -> None:
        """One optimizer step on one global batch."""
        step = self.progress.step
        self.learning_rate = self.course.rate(self.pace.at(step))
        self.stepper.take(step, self.learning_rate, self.course.image_size(step))
        self.progress.step += 1
        self.host.alive()

    # --- What the processes tell each other, and the user ---

    def beat(self) -> bool:
        """Now and then, and before an evaluation: exchange, report, save; whether it is time to leave."""
        due = self.pulse.tick()
        if not (due or self.owes_evaluation() or self.progress.step >= self.pace.end):
            return False
        with self.clock.spend("communication" if self.group.device.type == "cpu" else "compute"):
            old = self.group.leads and self.keeper.age >= self.config.checkpoint.every_seconds
            self.stepper.note_time()
            beat = self.pulse.beat(
                self.stepper.sums, stop=self.host.stop(), news=self.corrupt.news, save=old, told=self._wanted_end()
            )
        loss_sum, valid, *times = beat.sums
        self.clock.move("compute", "communication", self.course.replica.exposed_seconds() * beat.ticks)
        loss = loss_sum / max(1.0, valid)
        check_loss(self.progress, loss, steps=beat.ticks, learning_rate=self.learning_rate)
        if beat.news:
            self.corrupt.exchange()
        self.tempo.add_steps(beat.ticks, beat.seconds)
        self.meter.add(beat.ticks)
        self.course.note_read("train", beat.ticks * self.plan.batch)
        self.stragglers.compare(times, self.report)
        self._go_on_to(beat.told)
        self._report_progress(loss)
        if beat.save and not beat.stop:
            self.save()
        self.pulse.restart()
        return beat.stop

    def _wanted_end(self) -> int:
        """Rank 0's word on the step at which to end; 0 from the others, and where nothing limits the time."""
        left = self.budget.seconds_left
        if not self.group.leads or left is None:
            return 0
        return self.tempo.last_step(self.progress.step, seconds_left=left, saving=self.keeper.mean_seconds) or 0

    def _go_on_to(self, end: int) -> None:
        """All processes take the same line from the same step."""
        before, self.pace = self.pace, self.pace.to(end, step=self.progress.step) if end else self.pace
        if self.pace.bent and not before.bent:
            text = f"the schedule ends at step {self.pace.end} of {self.plan.steps}, for that is what there is time for"
            self.report.event("bent", text, step=self.progress.step, end=self.pace.end)
        if self.pace is not before:
            self.course.bend(self.pace, self.progress.step)

    def _report_progress(self, loss: float) -> None:
        plan, step, message = self.plan, self.progress.step, self.host.message
        rate = self.tempo.throughput.images_per_second
        left = self.tempo.eta(step, self.pace.end, self.progress.evaluated)
        message.step, message.steps, message.epoch = step, self.pace.end, self.progress.evaluated
        message.images_per_second = decimal(rate) if rate else None
        message.time, message.saved_seconds = self.clock.seconds(), self.course.saved()
        message.step_times = self.meter.times(self.course, self.tempo, saving=self.keeper.mean_seconds)
        self.report.keep_metrics({"train/loss": loss})
        facts = {
            "epoch": min(plan.epochs, plan.epochs_done(step - 1) + 1),
            "epochs": plan.epochs,
            "step": step,
            "steps": self.pace.end,
            "world": self.group.world,
            "learningRate": self.learning_rate,
            "imagesPerSecond": rate and round(rate, 1),
            "etaSeconds": left and round(left.seconds, 1),
            "slowest": self.stragglers.slowest and asdict(self.stragglers.slowest),
            "time": {bucket: round(seconds, 3) for bucket, seconds in message.time.items()},
        }
        self.report.progress(metrics={"train/loss": loss}, always=step >= self.pace.end, **facts)
        self.host.publish()
        self.host.tell(left)

    # --- Evaluation ---

    def owes_evaluation(self) -> bool:
        """Whether an epoch has ended whose evaluation is not done: now, or before the checkpoint was written."""
        return self.plan.epochs_done(self.progress.step) > self.progress.evaluated

    def evaluate_epoch(self) -> bool:
        """Measure on `val`, keep the weights if they are the best so far; False if told to leave meanwhile."""
        began, progress = now(), self.progress
        metrics = self.evaluate("val")
        if metrics is None:
            return False
        progress.evaluated, self.evaluated_step = self.plan.epochs_done(progress.step), progress.step
        self.host.message.epoch = progress.evaluated
        self.plateau.note(metrics)
        value = metrics[self.task.best_metric]
        better = progress.best is None or value > progress.best.value or math.isnan(progress.best.value)
        if better:
            named = {f"val/{name}": v for name, v in metrics.items()}
            progress.best = Best(value, progress.evaluated, progress.step, named)
            self.report.keep_best(f"val/{self.task.best_metric}", value, progress.evaluated)
            self.keeper.save_best(progress.step)
        self.tempo.add_evaluation(now() - began)
        self.report.evaluation(
            "val", metrics, epoch=progress.evaluated, step=progress.step, best=better, seconds=now() - began
        )
        self.review("val", progress.evaluated, best=better)
        self.host.publish()
        self.host.tell(None)
        self.pulse.restart()
        return True

    def review(self, split: str, epoch: int, *, best: bool) -> None:
        """What the evaluation just made found wrong, for the summary."""
        if not self.vision.summary.html:
            return
        classes = self.task.describe().get("classes", [])
        with self.clock.spend("other"):
            review = self.evaluator.reviewer.review(split, epoch, classes, self.group) if best else None
            self.summary.evaluated(review)

    def evaluate(self, split: str) -> dict[str, float] | None:
        with self.clock.spend("evaluation"), self.layout.whole(self.learner.judged) as whole:
            network, images = self.course.judged(whole, split)
            metrics = self.evaluator.measure(network, split, images, stop=self.host.stop)
            self.course.note_read(split, len(images))
            self.course.layers.train()
            return metrics

    # --- Checkpoints ---

    def save(self, *, wait: bool = False) -> None:
        """Every process; wait: nobody goes on before the checkpoint is on the disk."""
        progress = self.progress
        progress.corrupt, progress.pace, progress.seconds = self.corrupt.known(), self.pace.dump(), self.budget.used
        progress.blend = self.course.dump_blend()
        self.keeper.save(progress, wait=wait)
