"""The run's way through its phases: what learns at a step, from what it learns, and how fast."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from darkroom_api.v1alpha1.transfer import BatchNorm, Transfer, TransferPolicy
from darkroom_api.v1alpha1.vision import TrainerConfig
from darkroom_trainer.clock import now
from darkroom_trainer.data.blend import Blend
from darkroom_trainer.data.sampler import Plan, TrainingBatches
from darkroom_trainer.encode import Encoder, FeatureCache
from darkroom_trainer.features import Features
from darkroom_trainer.feed import Feed
from darkroom_trainer.host import Host
from darkroom_trainer.layout import Layout
from darkroom_trainer.pace import Pace
from darkroom_trainer.parallel import Replica, RunningStatistics
from darkroom_trainer.schedule import ImageSize, LearningRate, strength
from darkroom_trainer.stages import Stage, Tail
from darkroom_trainer.tasks.base import Batch, ImageSet
from darkroom_trainer.transfer import Layers, Phase, phases_of

_EVERYTHING = Transfer(policy=TransferPolicy.NONE, layer_decay="1", batch_norm=BatchNorm.TRAIN)
"""A run without `spec.vision.transfer`: one phase, in which one stage learns."""


class Course:
    """Set out once per run, then entered phase by phase: `replica`, `statistics` and `batches` are those of the phase."""

    replica: Replica
    statistics: RunningStatistics
    batches: Iterator[Batch]

    def __init__(
        self,
        config: TrainerConfig,
        host: Host,
        feed: Feed,
        layout: Layout,
        plan: Plan,
        splits: Mapping[str, ImageSet],
        model: nn.Module,
        *,
        progress: Callable[[int], float],
        say: Callable[[str], None],
    ) -> None:
        """progress: share of the schedule at a step."""
        self._vision = vision = config.vision
        self._host, self._feed, self._layout = host, feed, layout
        self._plan = replace(plan, blend=Blend.of(vision.synthetic, draws=plan.steps * plan.batch))
        self._splits, self._model, self._say = splits, model, say
        self._progress, self._image_size = progress, ImageSize.of(vision)
        self._transfer = vision.transfer or _EVERYTHING
        self.layers = Layers(model, self._stages(model), self._transfer)
        self._rate = LearningRate.of(
            vision.schedule,
            peak=float(vision.optimizer.learning_rate),
            steps=plan.steps,
            steps_per_epoch=plan.steps_per_epoch,
        )
        self.phases = phases_of(self._transfer, len(self.layers.stages), plan, warmup=self._rate.warmup)
        self._phase = self.phases[0]
        self._entered = False
        self._features: dict[str, Features] = {}
        shared = config.cache_dir is not None
        folder = Path(config.cache_dir or Path(config.run_dir, "features"))
        self._cache = FeatureCache(folder, host.group, shared=shared, say=say)
        self._seconds_saved = 0.0

    def _stages(self, model: nn.Module) -> list[Stage]:
        whole = [Stage("network", (model,), (model,))]
        return list(self._feed.task.stages(model)) if self._transfer is not _EVERYTHING else whole

    def rate(self, position: float) -> float:
        """The head's learning rate at a position in the schedule, in steps."""
        return self._rate.at(position) * self._phase_at(position).ease(position)

    def image_size(self, step: int) -> int | None:
        """Pixels a side to which the images of a step are reduced; None: they stay as they are."""
        return self._image_size.at(self._progress(step))

    def _strength(self, step: int) -> float:
        return strength(float(self._vision.augmentation.ramp_up), self._progress(step))

    def _phase_at(self, position: float) -> Phase:
        return next((phase for phase in self.phases if position < phase.end), self.phases[-1])

    @property
    def uniform(self) -> bool:
        """Whether all steps of the run cost the same: no phase after this one, and no features that were computed before."""
        return len(self.phases) == 1 and self._transfer.cache_features is None

    # --- Phases ---

    def owes_phase(self, position: float) -> bool:
        """Whether the stages that learn at a position in the schedule are not the ones that are open."""
        return not self._entered or self._phase_at(position) != self._phase

    def enter(self, step: int, *, position: float) -> bool:
        """Open the stages that learn at `position`; False if a process was told to leave meanwhile.

        DDP ignores for good what was frozen when it wrapped the network, so it wraps it again.
        """
        self._phase = self._phase_at(position)
        self._leave_features()
        self.layers.open(self._phase.first)
        self.layers.train()
        if self._caches and not self._encode():
            return False
        network = self._network(self._model)
        self.replica = self._layout.replica(network)
        self.statistics = self._layout.statistics(self._model)
        self.batches = self._batches(step)
        self._entered = True
        self._tell()
        return True

    def _tell(self) -> None:
        stages, first = self.layers.stages, self._phase.first
        if first:
            learning = ", ".join(stage.name for stage in stages[first:])
            self._say(f"steps {self._phase.start} to {self._phase.end} train {learning}; {first} stages are frozen")
        elif len(self.phases) > 1:
            self._say(f"steps {self._phase.start} to {self._phase.end} train all {len(stages)} stages")

    def _batches(self, step: int) -> Iterator[Batch]:
        share = self._layout.share(self._plan)
        draws = TrainingBatches(self._plan, share, start=step, end=self._plan.steps, strength=self._strength)
        return self._feed.batches(self._features.get("train", self._splits["train"]), draws)

    # --- Synthetic images ---

    def bend(self, pace: Pace, step: int) -> None:
        """From `step` on, let the share of synthetic images keep to a schedule at another pace."""
        if (before := self._plan.blend) and (
            blend := before.bent(pace, step=step, batch=self._plan.batch)
        ) is not before:
            self._plan = replace(self._plan, blend=blend)
            self.batches = self._batches(step)

    def dump_blend(self) -> list[float] | None:
        """For a checkpoint; None without synthetic images."""
        return self._plan.blend.dump() if self._plan.blend else None

    def load_blend(self, content: list[float] | None) -> None:
        """The inverse of `dump_blend`, before the first phase is entered."""
        if self._plan.blend:
            self._plan = replace(self._plan, blend=self._plan.blend.load(content))

    # --- Features ---

    @property
    def _caches(self) -> bool:
        return self._transfer.cache_features is not None and self._phase.first > 0

    def _encode(self) -> bool:
        cache = self._transfer.cache_features
        encoder = Encoder(self._feed, self.layers.stages, self._phase.first, batch=self._plan.micro_batch)
        for split, views in (("train", cache.views if cache else 1), ("val", 1)):
            began = now()
            features = self._cache.get(encoder, split, self._splits[split], views=views, stop=self._host.stop)
            if features is None:
                return False
            self._features[split] = features
            self._seconds_saved -= now() - began
        return True

    def _leave_features(self) -> None:
        if self._features:
            self._features = {}
            self._cache.drop()

    def finish(self) -> None:
        """After the whole run; one that is interrupted finds its features again."""
        self._leave_features()

    def saved(self) -> float | None:
        """Seconds that reading features saved so far, less the time that computing them took: an estimate."""
        return round(max(0.0, self._seconds_saved), 3) if self._transfer.cache_features else None

    def note_read(self, split: str, images: int) -> None:
        """Images of all processes that were wanted; how long they would have taken counts as saved if they were read."""
        if features := self._features.get(split):
            self._seconds_saved += images * features.seconds_per_row / self._host.group.world

    # --- Evaluation ---

    def judged(self, model: nn.Module, split: str) -> tuple[nn.Module, ImageSet | Features]:
        """The network and the images to measure it with: from where the split's features begin, or all of both."""
        features = self._features.get(split)
        return (self._network(model), features) if features else (model, self._splits[split])

    def _network(self, model: nn.Module) -> nn.Module:
        return Tail(model, self._stages(model), self._phase.first) if self._features else model
