"""A trial's objective by epoch, or by seconds of training, in the one line that its record keeps."""

from collections.abc import Mapping, Sequence

from darkroom_api.v1alpha1.training_job_status import Point

Curve = Mapping[int, float]
"""Values by epoch, or by seconds of training where pruning goes by them."""


def in_seconds(points: Sequence[Point] | None) -> list[Point]:
    """The same curve by seconds of training; without points that do not know theirs."""
    return [point.model_copy(update={"epoch": point.seconds}) for point in points or [] if point.seconds]


def of_points(points: Sequence[Point] | None) -> dict[int, float]:
    """From a TrainingJob's status."""
    return {point.epoch: float(point.value) for point in points or []}


def parse_curve(text: str | None) -> dict[int, float]:
    """`3:0.71 9:0.85` to values by epoch; what cannot be read is left out."""
    found: dict[int, float] = {}
    for part in (text or "").split():
        epoch, _, value = part.partition(":")
        try:
            found[int(epoch)] = float(value)
        except ValueError:
            continue
    return found


def curve_text(points: Sequence[Point] | None, epochs: Sequence[int]) -> str | None:
    """The points at these epochs, as they were reported."""
    wanted = set(epochs)
    return " ".join(f"{p.epoch}:{_short(p.value)}" for p in points or [] if p.epoch in wanted) or None


def _short(value: str) -> str:
    return value if len(value) <= 14 else f"{float(value):.8g}"
