"""Random changes to training images: `spec.vision.augmentation`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Decimal, Fraction, Model, Rule


class Crop(StrEnum):
    """How a training image is brought to `imageSize`."""

    RANDOM_RESIZED = "RandomResized"
    RANDOM_PAD = "RandomPad"
    CENTER = "Center"


class RandAugment(Model):
    """RandAugment (Cubuk et al., 2020)."""

    operations: Annotated[int, Field(ge=1, le=8, description="Operations applied to each image.")] = 2
    magnitude: Annotated[int, Field(ge=0, le=30, description="Strength of each, of 30.")] = 9


class Color(Model):
    """Colour jitter: each factor is drawn from 1 - x to 1 + x, in an order that is drawn too."""

    rules = (
        Rule(
            cel="double(self.hue) <= 0.5",
            message="hue must not be greater than 0.5, which is half of the colour circle",
            holds=lambda c: float(c.hue) <= 0.5,
            field="hue",
        ),
    )
    brightness: Annotated[Fraction, Field(description="Brightness.")] = "0.2"
    contrast: Annotated[Fraction, Field(description="Contrast.")] = "0.2"
    saturation: Annotated[Fraction, Field(description="Saturation.")] = "0.2"
    hue: Annotated[Fraction, Field(description="Largest turn of the colour circle either way, 0 to 0.5.")] = "0"


class Augmentation(Model):
    """Random changes to training images; evaluation never sees them. Masks and boxes go with the pixels."""

    rules = (
        Rule(
            cel="!has(self.rotation) || double(self.rotation) <= 180.0",  # a default of {} comes before those of fields
            message="rotation must not be greater than 180 degrees",
            holds=lambda a: float(a.rotation) <= 180.0,
            field="rotation",
        ),
        Rule(
            cel="!has(self.scaling) || double(self.scaling) <= 0.9",
            message="scaling must not be greater than 0.9",
            holds=lambda a: float(a.scaling) <= 0.9,
            field="scaling",
        ),
    )
    crop: Annotated[
        Crop,
        Field(
            description="RandomResized: a random area resized to imageSize. RandomPad: resized, padded by an eighth, and a "
            "random square cut out. Center: as in evaluation."
        ),
    ] = Crop.RANDOM_RESIZED
    min_scale: Annotated[Fraction, Field(description="Smallest area of RandomResized.")] = "0.35"
    horizontal_flip: Annotated[
        Fraction, Field(description="Probability of a mirror image. 0 where left and right matter, as in digits.")
    ] = "0.5"
    rand_augment: Annotated[RandAugment | None, Field(description="RandAugment; absent: off.")] = None
    mixup: Annotated[Decimal, Field(description="Alpha of MixUp; 0: off.")] = "0"
    cutmix: Annotated[Decimal, Field(description="Alpha of CutMix; 0: off. With both, each batch draws one.")] = "0"
    erasing: Annotated[Fraction, Field(description="Probability of random erasing.")] = "0"
    ramp_up: Annotated[
        Fraction,
        Field(
            description="Share of the schedule in which RandomResized, RandAugment and erasing grow from nothing to full."
        ),
    ] = "0"
    rotation: Annotated[Decimal, Field(description="Largest rotation either way, in degrees.")] = "0"
    translation: Annotated[Fraction, Field(description="Largest shift either way, as a share of the image's side.")] = (
        "0"
    )
    scaling: Annotated[Fraction, Field(description="Scaled by a factor from 1 - x to 1 + x.")] = "0"
    color: Annotated[Color | None, Field(description="Colour jitter; absent: off.")] = None
    copy_paste: Annotated[
        Fraction,
        Field(
            description="Segmentation, and Detection from Coco with masks: probability that objects of another training image "
            "are pasted into one, with their labels (Ghiasi et al., 2021)."
        ),
    ] = "0"


def augmentation_rules() -> tuple[Rule, ...]:
    """Rules of `spec.vision` that follow from `augmentation`."""
    return (
        Rule(
            cel="double(self.augmentation.copyPaste) == 0.0 || self.task == 'Segmentation' || self.data.format == 'Coco'",
            message="augmentation.copyPaste needs masks: it is for Segmentation, and for Detection from Coco",
            holds=lambda v: (
                float(v.augmentation.copy_paste) == 0 or v.task == "Segmentation" or v.data.format == "Coco"
            ),
            field="augmentation",
        ),
    )
