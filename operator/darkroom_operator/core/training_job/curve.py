"""The objective of a sweep's trial by epoch: what pruning decides from, before and after a restart."""

import math
from collections.abc import Sequence

from darkroom_api.report import Standing
from darkroom_api.v1alpha1.training_job_status import Point, TimeSpent

MOST_POINTS = 200
_STARTING = ("startup", "rendezvous", "restore")
"""Time of the trainer's that is no training: whoever starts more slowly, or again, does not train longer for it."""
_TRAINING = ("compile", "data_wait", "compute", "communication", "evaluation", "checkpoint")
"""The rest, as a status names it; steps that were lost count once, when they are done again."""


def with_point(
    curve: Sequence[Point] | None, said: Standing, metric: str | None, before: TimeSpent | None = None
) -> list[Point] | None:
    """The curve with what a report says of the metric. An epoch's later word wins: a restart may repeat epochs.

    before: of earlier attempts.
    """
    told = next((m.value for m in said.metrics if m.name == metric), None)
    known = list(curve or [])
    if told is None or said.epoch < 1 or not is_number(told):
        return known or None
    stride = 1
    while said.epoch > MOST_POINTS * stride:
        stride *= 2
    kept = [point for point in known if point.epoch < said.epoch and point.epoch % stride == 0]
    return [*kept, Point(epoch=said.epoch, value=told, seconds=_seconds(said, before))]


def _seconds(said: Standing, before: TimeSpent | None) -> int | None:
    """Of training; None where the trainer does not say how it spends its time."""
    if not said.time:
        return None
    earlier = sum(float(getattr(before, name)) for name in _TRAINING) if before else 0.0
    return round(earlier + sum(seconds for name, seconds in said.time.items() if name not in _STARTING))


def is_number(text: str) -> bool:
    """Whether a metric's value is a number; nan counts as one, infinity does not."""
    try:
        return not math.isinf(float(text))
    except ValueError:
        return False
