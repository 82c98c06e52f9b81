"""What the trainer can find out from the images themselves, and how pixels are standardised."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Decimal, Model, Rule


class Measured(StrEnum):
    """A property of the training images that settles a field of the recipe."""

    IMAGE_SIZE = "ImageSize"
    NORMALIZATION = "Normalization"
    STEM = "Stem"


Channel = Annotated[list[Decimal], Field(min_length=3, max_length=3)]


class Normalization(Model):
    """Per-channel standardisation of RGB values in 0..1."""

    rules = (
        Rule(
            cel="!has(self.std) || self.std.all(s, double(s) > 0.0)",  # a default of {} is checked before its fields have theirs
            message="std must be greater than 0",
            holds=lambda n: all(float(s) > 0.0 for s in n.std),
            field="std",
        ),
    )
    mean: Annotated[Channel, Field(description="Mean of R, G, B.")] = ["0.485", "0.456", "0.406"]
    std: Annotated[Channel, Field(description="Standard deviation of R, G, B.")] = ["0.229", "0.224", "0.225"]
