"""What changes while a network learns, and when it has learned enough."""

from typing import Annotated, Any

from pydantic import Field

from darkroom_api.v1alpha1.common import Decimal, Fraction, Model, Rule
from darkroom_api.v1alpha1.tasks import Task


class Resolution(Model):
    """Progressive resizing: small images at first, which take less time."""

    start: Annotated[int, Field(ge=16, le=2048, description="Height and width at the beginning, in pixels.")]
    until: Annotated[
        Fraction, Field(description="Share of the schedule after which images have `imageSize`. In between they grow.")
    ] = "0.8"
    step: Annotated[
        int, Field(ge=1, le=512, description="Pixels by which they grow at a time: each size costs some tuning.")
    ] = 32


class EarlyStop(Model):
    """The run ends when `val` stops getting better: reason Plateau, and the best epoch's weights are exported."""

    patience: Annotated[int, Field(ge=1, le=1000, description="Epochs without a better value after which it ends.")]
    min_delta: Annotated[Decimal, Field(description="What a value must be better by to count.")] = "0"
    metric: Annotated[
        str | None,
        Field(
            pattern=r"^[a-zA-Z0-9]{1,32}$",
            max_length=32,
            description="Metric of `val`, without the prefix; of `loss` less is better. Absent: the one that chooses "
            "the best epoch.",
        ),
    ] = None


def progression_rules() -> tuple[Rule, ...]:
    """Networks that take one size alone, and boxes, don't go with growing images."""

    def grows(vision: Any) -> bool:
        return vision.schedule.resolution is not None

    return (
        Rule(
            cel="!has(self.schedule.resolution) || self.schedule.resolution.start < self.imageSize",
            message="schedule.resolution.start must be less than imageSize",
            holds=lambda v: not grows(v) or v.schedule.resolution.start < v.image_size,
            field="schedule",
        ),
        Rule(
            cel="!has(self.schedule.resolution) || (self.task != 'Detection' && "
            "!self.model.architecture.matches('^(vit|maxvit)'))",
            message="schedule.resolution is for Classification and Segmentation, and for networks that take any size: no "
            "ViT and MaxViT",
            holds=lambda v: (
                not grows(v) or (v.task != Task.DETECTION and not v.model.architecture.startswith(("vit", "maxvit")))
            ),
            field="schedule",
        ),
    )
