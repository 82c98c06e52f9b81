"""When a trial is stopped because it is not worth going on. What counts is the epoch, as the trainer reports it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Decimal, Model, Rule
from darkroom_api.v1alpha1.search_space import Number

Epochs = Annotated[int, Field(ge=1, le=10000)]
_FACTOR = Field(ge=2, le=10, description="One of this many goes on from rung to rung, which are this factor apart.")


class AshaMode(StrEnum):
    """How early ASHA dares to decide."""

    AGGRESSIVE = "Aggressive"
    STANDARD = "Standard"
    CONSERVATIVE = "Conservative"


class Asha(Model):
    """Asynchronous successive halving (Li et al., 2020), by stopping: at each rung, only the best go on."""

    rules = (
        Rule(
            cel="!has(self.minSeconds) || self.minEpochs == 3",
            message="minEpochs must be absent where minSeconds is set",
            holds=lambda a: a.min_seconds is None or a.min_epochs == 3,
            field="minEpochs",
        ),
        Rule(
            cel="self.mode == 'Aggressive' || (has(self.maxEpochs) && !has(self.minSeconds))",
            message="mode Standard and Conservative need maxEpochs, and do not go with minSeconds",
            holds=lambda a: a.mode == "Aggressive" or (a.max_epochs is not None and a.min_seconds is None),
            field="mode",
        ),
        Rule(
            cel="!has(self.maxEpochs) || self.minEpochs < self.maxEpochs",
            message="minEpochs must be less than maxEpochs",
            holds=lambda a: a.max_epochs is None or a.min_epochs < a.max_epochs,
            field="minEpochs",
        ),
    )
    mode: Annotated[
        AshaMode,
        Field(
            description="Aggressive: every trial is judged from the first rung on. Standard: trials go into half of the brackets "
            "that fit below maxEpochs, each with a later first rung than the one before. Conservative: into all of them."
        ),
    ] = AshaMode.AGGRESSIVE
    max_epochs: Annotated[
        Epochs | None, Field(description="Epochs of a whole training; it bounds the number of brackets.")
    ] = None
    min_epochs: Annotated[
        Epochs, Field(description="Epochs before the first decision. A first rung of 1 mostly hurts.")
    ] = 3
    min_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=31536000,
            description="In place of minEpochs: seconds of training before the first decision, so that networks whose epochs "
            "take more or less time are compared after the same time. Starts do not count.",
        ),
    ] = None
    reduction_factor: Annotated[int, _FACTOR] = 3


class Hyperband(Model):
    """Several ASHA brackets with later and later first rungs (Li et al., 2018); a trial's bracket follows from its number."""

    rules = (
        Rule(
            cel="self.minEpochs < self.maxEpochs",
            message="minEpochs must be less than maxEpochs",
            holds=lambda h: h.min_epochs < h.max_epochs,
            field="minEpochs",
        ),
    )
    min_epochs: Annotated[Epochs, Field(description="Epochs before the first decision in the most eager bracket.")] = 1
    max_epochs: Annotated[Epochs, Field(description="Epochs of a whole training; it bounds the number of brackets.")]
    reduction_factor: Annotated[int, _FACTOR] = 3


class Percentile(Model):
    """Stops what is worse than a percentile of the completed trials at the same epoch."""

    percentile: Annotated[
        int,
        Field(ge=1, le=99, description="Share that goes on, in percent: 50 is the median, 25 keeps the best quarter."),
    ] = 50
    startup_trials: Annotated[int, Field(ge=1, le=1000, description="Completed trials before the first decision.")] = 5
    warmup_epochs: Annotated[int, Field(ge=0, le=10000, description="Epochs of a trial before the first decision.")] = 0
    interval_epochs: Annotated[Epochs, Field(description="Epochs between two decisions.")] = 1


class Median(Model):
    """Stops what is worse than the median of the completed trials at the same epoch."""

    startup_trials: Annotated[int, Field(ge=1, le=1000, description="Completed trials before the first decision.")] = 5
    warmup_epochs: Annotated[int, Field(ge=0, le=10000, description="Epochs of a trial before the first decision.")] = 0
    interval_epochs: Annotated[Epochs, Field(description="Epochs between two decisions.")] = 1


class Threshold(Model):
    """Stops what leaves a band."""

    rules = (
        Rule(
            cel="has(self.lower) || has(self.upper)",
            message="at least one of lower and upper must be set",
            holds=lambda t: t.lower is not None or t.upper is not None,
        ),
        Rule(
            cel="!has(self.lower) || !has(self.upper) || double(self.lower) < double(self.upper)",
            message="lower must be less than upper",
            holds=lambda t: t.lower is None or t.upper is None or float(t.lower) < float(t.upper),
            field="lower",
        ),
    )
    lower: Annotated[Number | None, Field(description="Smallest value that goes on.")] = None
    upper: Annotated[Number | None, Field(description="Largest value that goes on.")] = None
    warmup_epochs: Annotated[int, Field(ge=0, le=10000, description="Epochs of a trial before the first decision.")] = 0
    interval_epochs: Annotated[Epochs, Field(description="Epochs between two decisions.")] = 1


class Patience(Model):
    """Stops a trial that has not become better for a while."""

    epochs: Annotated[Epochs, Field(description="Epochs without a better value.")]
    min_delta: Annotated[Decimal, Field(description="What counts as no better: up to this much.")] = "0"


class Pruning(Model):
    """One rule by which trials are stopped early."""

    rules = (
        Rule(
            cel="[has(self.asha), has(self.hyperband), has(self.median), has(self.percentile), has(self.threshold), "
            "has(self.patience)].filter(given, given).size() == 1",
            message="exactly one of asha, hyperband, median, percentile, threshold and patience must be set",
            holds=lambda p: sum(getattr(p, name) is not None for name in type(p).model_fields) == 1,
        ),
    )
    asha: Annotated[Asha | None, Field(description="At each rung, only the best go on.")] = None
    hyperband: Annotated[Hyperband | None, Field(description="ASHA in several brackets.")] = None
    median: Annotated[Median | None, Field(description="Better than the median of the completed trials.")] = None
    percentile: Annotated[Percentile | None, Field(description="Better than a percentile of the completed trials.")] = (
        None
    )
    threshold: Annotated[Threshold | None, Field(description="Within a band.")] = None
    patience: Annotated[Patience | None, Field(description="Still getting better.")] = None
