"""A search that needs no recipe: `spec.auto` of a TuningSweep."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from darkroom_api.v1alpha1.budget import Duration, seconds_of
from darkroom_api.v1alpha1.common import ClaimName, Decimal, DnsLabel, Model, Quantity, Rule, without_nulls
from darkroom_api.v1alpha1.data import Data
from darkroom_api.v1alpha1.tasks import FORMATS, Task
from darkroom_api.v1alpha1.training_job import Checkpoint, TrainingJobSpec
from darkroom_api.v1alpha1.tuning_sweep import Algorithm, TuningSweepSpec, sweep_changes

LEAST_SECONDS = 120
"""Of a search: a trial takes half a minute at least, and there must be a few."""


class Quality(StrEnum):
    """How large the networks may be, and how thorough the search."""

    FAST = "Fast"
    BALANCED = "Balanced"
    BEST = "Best"


class AutoBudget(Model):
    """What the search may take, with the last training."""

    rules = (
        Rule(
            cel="has(self.maxDuration) || has(self.maxGpuHours)",
            message="at least one of maxDuration and maxGpuHours must be set: the length of a trial follows from it",
            holds=lambda b: b.max_duration is not None or b.max_gpu_hours is not None,
        ),
        Rule(
            # a duration in CEL: Go's grammar is the same
            cel=f"!has(self.maxDuration) || duration(self.maxDuration) >= duration('{LEAST_SECONDS}s')",
            message=f"maxDuration must be at least {LEAST_SECONDS // 60}m",
            holds=lambda b: b.max_duration is None or seconds_of(b.max_duration) >= LEAST_SECONDS,
            field="maxDuration",
        ),
        Rule(
            cel="!has(self.maxGpuHours) || double(self.maxGpuHours) > 0.0",
            message="maxGpuHours must be more than nothing",
            holds=lambda b: b.max_gpu_hours is None or float(b.max_gpu_hours) > 0,
            field="maxGpuHours",
        ),
        Rule(
            cel="!has(self.maxCost) || double(self.maxCost) > 0.0",
            message="maxCost must be more than nothing",
            holds=lambda b: b.max_cost is None or float(b.max_cost) > 0,
            field="maxCost",
        ),
    )
    max_duration: Annotated[Duration | None, Field(description="Time since the first trial was made, as 12h.")] = None
    max_gpu_hours: Annotated[Decimal | None, Field(description="Accelerator-hours of all trainings.")] = None
    max_cost: Annotated[Decimal | None, Field(description="Cost of all trainings by the profile's prices.")] = None


_RESOURCE_RULES = tuple(rule for rule in TrainingJobSpec.rules if rule.field == "resourcesPerNode")


class Auto(Model):
    """What is to be learned from which images, and for how much; the rest is found out."""

    rules = (
        Rule(
            cel=" || ".join(
                f"(self.task == '{task}' && self.data.format in {[str(name) for name in formats]})"
                for task, formats in FORMATS.items()
            ),
            message="data.format must be one that the task learns from: "
            + "; ".join(f"{task} from {' or '.join(formats)}" for task, formats in FORMATS.items()),
            holds=lambda a: a.data.format in FORMATS[a.task],
            field="task",
        ),
        *_RESOURCE_RULES,
    )
    task: Annotated[Task, Field(description="What is learned.")] = Task.CLASSIFICATION
    data: Annotated[Data, Field(description="The images.")]
    quality: Annotated[
        Quality,
        Field(
            description="Fast: small networks and few trials. Balanced. Best: large networks and many trials. The budget holds "
            "for each."
        ),
    ] = Quality.BALANCED
    budget: Annotated[AutoBudget, Field(description="What it may take, with the last training.")]
    checkpoint: Annotated[
        Checkpoint,
        Field(description="Where the trainings keep their checkpoints, and the last one its exported model."),
    ]
    weights_claim: Annotated[
        ClaimName | None,
        Field(
            description="PersistentVolumeClaim with torch's hub cache: a network whose weights are in it starts from them, any "
            "other from scratch. Absent: all from scratch, and no networks that learn little so."
        ),
    ] = None
    profile: Annotated[DnsLabel, Field(description="What the platform team offers under this name.")] = "default"
    resources_per_node: Annotated[
        dict[str, Quantity],
        Field(max_length=16, description="Requests and limits of each training, over the profile's by name."),
        BeforeValidator(without_nulls),
    ] = {}


class AutoSweep(Model):
    """A TuningSweep's spec with `auto`, which says the rest."""

    auto: Annotated[Auto, Field(description="What is to be learned; in place of the fields that say how to search.")]
    algorithm: Annotated[Algorithm, Field(description="How the next parameters are chosen.")] = Algorithm()
    parallelism: Annotated[int, Field(ge=1, le=200, description="Trials at the same time.")] = 1
    suspend: Annotated[bool, Field(description="True: no new trials, and running ones are suspended.")] = False


SAID_BY_AUTO = tuple(
    str(field.alias) for name, field in TuningSweepSpec.model_fields.items() if name not in AutoSweep.model_fields
)
"""Fields of a TuningSweep's spec that `auto` stands for."""
NEEDED = tuple(str(field.alias) for field in TuningSweepSpec.model_fields.values() if field.is_required())
"""Those without which a spec needs `auto`."""
ONE_WAY = Rule(
    cel=f"has(self.auto) ? !({' || '.join(f'has(self.{name})' for name in SAID_BY_AUTO)}) : "
    f"({' && '.join(f'has(self.{name})' for name in NEEDED)})",
    message=f"either auto, without {', '.join(SAID_BY_AUTO)}, or all of {', '.join(NEEDED)}",
    holds=lambda _: True,  # two models in Python: AutoSweep and TuningSweepSpec
)
AUTO_IS_FIXED = Rule(
    cel="has(self.auto) == has(oldSelf.auto) && (!has(self.auto) || self.auto == oldSelf.auto)",
    message="auto is immutable: create a sweep of another name",
    holds=lambda _: True,  # a transition
    field="auto",
)


def spec_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Messages for what an update of a spec (wire form, defaults filled in) may not change, said in either way."""
    fixed = [] if old.get("auto") == new.get("auto") else [AUTO_IS_FIXED.message]
    return [*fixed, *sweep_changes(old, new)]
