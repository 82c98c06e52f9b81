"""Synthetic training images: `spec.vision.synthetic`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from darkroom_api.v1alpha1.common import Decimal, Fraction, Model, Rule


class SyntheticSource(StrEnum):
    """Where synthetic images come from."""

    SCENES = "Scenes"
    FRACTALS = "Fractals"


class SyntheticSchedule(StrEnum):
    """When synthetic images are trained on."""

    PRETRAIN = "Pretrain"
    MIXED = "Mixed"
    ANNEAL = "Anneal"


ClassName = Annotated[str, Field(min_length=1, max_length=63)]


class Scenes(Model):
    """Rendered scenes of flat shapes, each with its class, box and mask; what is random in them (domain randomisation)."""

    rules = (
        Rule(
            cel="self.minObjects <= self.maxObjects",
            message="minObjects must not be greater than maxObjects",
            holds=lambda s: s.min_objects <= s.max_objects,
            field="minObjects",
        ),
        Rule(
            cel="double(self.minSize) > 0.0 && double(self.minSize) <= double(self.maxSize)",
            message="minSize must be greater than 0 and not greater than maxSize",
            holds=lambda s: 0.0 < float(s.min_size) <= float(s.max_size),
            field="minSize",
        ),
        Rule(
            cel="double(self.perspective) < 0.5",
            message="perspective must be less than 0.5: beyond it a shape has no outline",
            holds=lambda s: float(s.perspective) < 0.5,
            field="perspective",
        ),
    )
    classes: Annotated[
        list[ClassName] | None,
        Field(
            min_length=1,
            max_length=6,
            description="Shapes to render: circle, square, triangle, star, cross, crescent. The data set must have a class of "
            "each one's name. Absent: all classes of the data set, which must all be shapes.",
        ),
    ] = None
    texture: Annotated[Fraction, Field(description="Strength of patterns and clouds on surfaces; 0: plain.")] = "1"
    light: Annotated[Fraction, Field(description="Strength of changing light and of shadows; 0: even light.")] = "1"
    blur: Annotated[Decimal, Field(description="Largest blur: standard deviation of a Gaussian, in pixels.")] = "1"
    noise: Annotated[
        Decimal, Field(description="Largest noise of the sensor: standard deviation, of a pixel's 255.")
    ] = "12"
    occlusion: Annotated[Fraction, Field(description="Largest share of an object that others hide.")] = "0.4"
    perspective: Annotated[
        Fraction,
        Field(description="Largest tilt out of the image's plane: change of scale from the middle to the rim."),
    ] = "0.25"
    min_objects: Annotated[
        int, Field(ge=1, le=20, description="Fewest objects. A scene for Classification has one object.")
    ] = 1
    max_objects: Annotated[int, Field(ge=1, le=20, description="Most objects.")] = 3
    min_size: Annotated[Fraction, Field(description="Smallest object: diameter, of the image's side.")] = "0.28"
    max_size: Annotated[Fraction, Field(description="Largest object.")] = "0.56"


class Fractals(Model):
    """Attractors of iterated function systems, with classes of their own (FractalDB: Kataoka et al., 2020)."""

    classes: Annotated[
        int, Field(ge=2, le=4096, description="Formulas, each a class. The head for them is left out of the model.")
    ] = 100


class Gate(Model):
    """What synthetic images must be like before a training begins, on features of its own network."""

    images: Annotated[
        int,
        Field(ge=16, le=2048, description="Most images of each kind: synthetic, real to train on, real to validate."),
    ] = 256
    max_kid: Annotated[
        Decimal | None,
        Field(description="Largest Kernel Inception Distance, of features with a variance of 1; the same: 0."),
    ] = None
    max_auc: Annotated[
        Fraction | None,
        Field(description="Largest area under the ROC curve of a probe that tells synthetic from real; chance: 0.5."),
    ] = None
    min_tstr_ratio: Annotated[
        Decimal | None,
        Field(
            description="Smallest share of a probe's accuracy on real validation images that is left if it learns from "
            "synthetic images in place of real ones."
        ),
    ] = None


class Synthetic(Model):
    """Synthetic images among the training images. Validation and test are real, always."""

    rules = (
        Rule(
            cel="double(self.ratio) > 0.0",
            message="ratio must be greater than 0; leave `synthetic` out to train on real images alone",
            holds=lambda s: float(s.ratio) > 0.0,
            field="ratio",
        ),
        Rule(
            cel="!has(self.scenes) || self.source == 'Scenes'",
            message="scenes is for source Scenes",
            holds=lambda s: s.scenes is None or s.source == SyntheticSource.SCENES,
            field="scenes",
        ),
        Rule(
            cel="!has(self.fractals) || self.source == 'Fractals'",
            message="fractals is for source Fractals",
            holds=lambda s: s.fractals is None or s.source == SyntheticSource.FRACTALS,
            field="fractals",
        ),
        Rule(
            cel="!has(self.gate) || self.source != 'Fractals'",
            message="gate compares images of the same classes: it does not go with Fractals",
            holds=lambda s: s.gate is None or s.source != SyntheticSource.FRACTALS,
            field="gate",
        ),
        Rule(
            cel="self.source != 'Fractals' || self.schedule == 'Pretrain'",
            message="fractals have classes of their own: they need schedule Pretrain",
            holds=lambda s: s.source != SyntheticSource.FRACTALS or s.schedule == SyntheticSchedule.PRETRAIN,
            field="schedule",
        ),
    )
    source: Annotated[
        SyntheticSource,
        Field(
            description="Scenes: rendered objects of the data set's classes. Fractals: classes of their own, to pretrain a "
            "Classification without weights. Both are made while training: the same seed and number give the same pixels on "
            "any node."
        ),
    ]
    ratio: Annotated[
        Fraction,
        Field(
            description="Share of all images of the run that are synthetic. The number of steps stays the same: an epoch has "
            "as many images as there are real ones to train on."
        ),
    ] = "0.5"
    schedule: Annotated[
        SyntheticSchedule,
        Field(
            description="Pretrain: the synthetic images first, then the real ones. Mixed: the same share in each batch. "
            "Anneal: a share that falls in a straight line to none at the end."
        ),
    ] = SyntheticSchedule.MIXED
    scenes: Annotated[
        Scenes | None, Field(description="What rendered scenes are like; absent: the defaults of its fields.")
    ] = None
    gate: Annotated[
        Gate | None,
        Field(
            description="Measure the synthetic images before the first step; status.fidelity says the result. Beyond a threshold "
            "the job fails with FidelityTooLow. Absent: off."
        ),
    ] = None
    fractals: Annotated[
        Fractals | None, Field(description="How many fractals there are; absent: the defaults of its fields.")
    ] = None


def synthetic_rules() -> tuple[Rule, ...]:
    """Rules of `spec.vision` that follow from `synthetic`."""
    return (
        Rule(
            cel="!has(self.synthetic) || !has(self.transfer) || !has(self.transfer.cacheFeatures)",
            message="transfer.cacheFeatures keeps features of images that come again: it does not go with synthetic",
            holds=lambda v: v.synthetic is None or v.transfer is None or v.transfer.cache_features is None,
            field="synthetic",
        ),
        Rule(
            cel="!has(self.synthetic) || self.synthetic.source != 'Fractals' || "
            "(self.task == 'Classification' && !has(self.transfer) && !has(self.model.weights))",
            message="synthetic.source Fractals pretrains a Classification from its first layer on: it does not go with transfer "
            "or model.weights",
            holds=lambda v: (
                v.synthetic is None
                or v.synthetic.source != SyntheticSource.FRACTALS
                or (v.task == "Classification" and v.transfer is None and v.model.weights is None)
            ),
            field="synthetic",
        ),
    )
