"""What a training may cost, and what it need not exceed."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Decimal, Model, Rule

DURATION = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
Duration = Annotated[str, Field(min_length=2, max_length=24, pattern=DURATION)]
"""Hours, minutes and seconds, as `2h`, `90m` or `1h30m`."""


def seconds_of(duration: str) -> int:
    """Seconds of a Duration."""
    parts = {unit: int(number) for number, unit in re.findall(r"([0-9]+)([hms])", duration)}
    return parts.get("h", 0) * 3600 + parts.get("m", 0) * 60 + parts.get("s", 0)


class Direction(StrEnum):
    """Which way a metric gets better."""

    MAXIMIZE = "Maximize"
    MINIMIZE = "Minimize"


class Target(Model):
    """A value that is good enough: the training ends once it is reported."""

    metric: Annotated[
        str, Field(min_length=1, max_length=63, description="Metric as the trainer reports it, such as val/top1.")
    ]
    value: Annotated[Decimal, Field(description='Value that is good enough, as "0.93".')]
    direction: Annotated[Direction, Field(description="Maximize: at least the value. Minimize: at most.")] = (
        Direction.MAXIMIZE
    )


_LIMITS = ("max_duration", "max_cost", "max_gpu_hours", "target")


class Budget(Model):
    """What the training may take over all attempts. At a limit it is asked to finish with what it has learnt.

    A trainer that takes live reports (the built-in one does) then measures, exports and completes with reason BudgetSpent or
    TargetReached. One that does not is stopped, and the job fails with the same reason; its checkpoints stay.
    """

    rules = (
        Rule(
            cel="has(self.maxDuration) || has(self.maxCost) || has(self.maxGpuHours) || has(self.target)",
            message="at least one of maxDuration, maxCost, maxGpuHours and target must be set",
            holds=lambda b: any(getattr(b, name) is not None for name in _LIMITS),
        ),
        Rule(
            cel="!has(self.maxDuration) || self.maxDuration.matches('[1-9]')",
            message="maxDuration must be more than nothing",
            holds=lambda b: b.max_duration is None or seconds_of(b.max_duration) > 0,
            field="maxDuration",
        ),
        Rule(
            cel="!has(self.maxCost) || double(self.maxCost) > 0.0",
            message="maxCost must be more than nothing",
            holds=lambda b: b.max_cost is None or float(b.max_cost) > 0,
            field="maxCost",
        ),
        Rule(
            cel="!has(self.maxGpuHours) || double(self.maxGpuHours) > 0.0",
            message="maxGpuHours must be more than nothing",
            holds=lambda b: b.max_gpu_hours is None or float(b.max_gpu_hours) > 0,
            field="maxGpuHours",
        ),
    )
    max_duration: Annotated[
        Duration | None,
        Field(
            description="Time of all attempts, as 2h or 1h30m. Suspension and the pauses between attempts do not count."
        ),
    ] = None
    max_cost: Annotated[
        Decimal | None, Field(description="Cost by the profile's prices, in its currency, as status.cost has it.")
    ] = None
    max_gpu_hours: Annotated[Decimal | None, Field(description="Accelerator-hours, as status.gpuHours has them.")] = (
        None
    )
    target: Annotated[Target | None, Field(description="Ends the training early once it is good enough.")] = None
