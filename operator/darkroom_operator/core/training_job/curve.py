"""The objective of a sweep's trial by epoch: what pruning decides from, before and after a restart."""

import math
from collections.abc import Sequence

from darkroom_api.report import Standing
from darkroom_api.v1alpha1.training_job_status import Point

MOST_POINTS = 200


def with_point(curve: Sequence[Point] | None, said: Standing, metric: str | None) -> list[Point] | None:
    """The curve with what a report says of the metric. An epoch's later word wins: a restart may repeat epochs."""
    told = next((m.value for m in said.metrics if m.name == metric), None)
    known = list(curve or [])
    if told is None or said.epoch < 1 or not is_number(told):
        return known or None
    stride = 1
    while said.epoch > MOST_POINTS * stride:
        stride *= 2
    kept = [point for point in known if point.epoch < said.epoch and point.epoch % stride == 0]
    return [*kept, Point(epoch=said.epoch, value=told)]


def is_number(text: str) -> bool:
    """Whether a metric's value is a number; nan counts as one, infinity does not."""
    try:
        return not math.isinf(float(text))
    except ValueError:
        return False
