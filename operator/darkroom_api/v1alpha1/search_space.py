"""What a tuning sweep may vary: parameters with ranges or choices, where their values go, and when they exist at all."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, WithJsonSchema

from darkroom_api import names
from darkroom_api.v1alpha1.common import Model, Rule
from darkroom_api.v1alpha1.trial_paths import PATHS

NUMBER = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?(e-?[0-9]{1,2})?$"
Number = Annotated[str, Field(max_length=24, pattern=NUMBER)]
"""A decimal number in a string, as `"-0.5"` or `"1e-4"`: the API has no floats."""
ParameterName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
Value = Annotated[str, Field(max_length=256)]
"""A parameter's value as text: `"0.001"`, `"64"`, `"resnet18"`."""
EnvName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Path = Annotated[str, Field(max_length=64), WithJsonSchema({"type": "string", "enum": list(PATHS)})]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]

_RESERVED_CEL = " || ".join(
    [f"self.env.startsWith('{prefix}')" for prefix in names.RESERVED_ENV_PREFIXES]
    + [f"self.env in {list(names.RESERVED_ENV_NAMES)}"]
)


def is_reserved(name: str | None) -> bool:
    """Whether the operator sets this environment variable itself."""
    return name is not None and (name.startswith(names.RESERVED_ENV_PREFIXES) or name in names.RESERVED_ENV_NAMES)


class Place(Model):
    """Where a value goes in a trial's spec."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.path) != has(self.env)",
            message="exactly one of path and env must be set",
            holds=lambda p: (p.path is None) != (p.env is None),
        ),
        Rule(
            cel=f"!has(self.env) || !({_RESERVED_CEL})",
            message="env must not be a name that the operator sets: PET_*, DARKROOM_*, TORCHELASTIC_*, RANK and the like",
            holds=lambda p: not is_reserved(p.env),
            field="env",
        ),
        Rule(
            cel=f"!has(self.path) || self.path in {list(PATHS)}",
            message="path must be a field of TrainingJob's spec that a sweep may set, as vision.optimizer.learningRate",
            holds=lambda p: p.path is None or p.path in PATHS,
            field="path",
        ),
    )
    path: Annotated[
        Path | None,
        Field(description="Field of TrainingJob's spec that gets the value, as vision.optimizer.learningRate."),
    ] = None
    env: Annotated[
        EnvName | None, Field(description="Environment variable that gets the value, for trials with a container.")
    ] = None


class Assignment(Place):
    """A value for one field or environment variable."""

    value: Annotated[Value, Field(description="The value as text.")]


class Scale(StrEnum):
    """How a range is walked through."""

    LINEAR = "Linear"
    LOG = "Log"


class Double(Model):
    """A range of real numbers, ends included."""

    rules = (
        Rule(
            cel="double(self.min) < double(self.max)",
            message="min must be less than max",
            holds=lambda d: float(d.min) < float(d.max),
            field="min",
        ),
        Rule(
            cel="self.scale != 'Log' || double(self.min) > 0.0",
            message="scale Log needs a min greater than 0",
            holds=lambda d: d.scale != Scale.LOG or float(d.min) > 0,
            field="min",
        ),
        Rule(
            cel="!has(self.step) || double(self.step) > 0.0",
            message="step must be greater than 0",
            holds=lambda d: d.step is None or float(d.step) > 0,
            field="step",
        ),
        Rule(
            cel="!has(self.step) || self.scale != 'Log'",
            message="step does not go with scale Log",
            holds=lambda d: d.step is None or d.scale != Scale.LOG,
            field="step",
        ),
    )
    min: Annotated[Number, Field(description="Smallest value.")]
    max: Annotated[Number, Field(description="Largest value.")]
    scale: Annotated[Scale, Field(description="Log: every power of ten is as likely as another.")] = Scale.LINEAR
    step: Annotated[Number | None, Field(description="Distance of the values from min on. Grid needs it.")] = None


class Int(Model):
    """A range of whole numbers, ends included."""

    rules = (
        Rule(
            cel="self.min < self.max",
            message="min must be less than max",
            holds=lambda i: i.min < i.max,
            field="min",
        ),
        Rule(
            cel="self.scale != 'Log' || self.min > 0",
            message="scale Log needs a min greater than 0",
            holds=lambda i: i.scale != Scale.LOG or i.min > 0,
            field="min",
        ),
        Rule(
            cel="!has(self.step) || self.scale != 'Log'",
            message="step does not go with scale Log",
            holds=lambda i: i.step is None or i.scale != Scale.LOG,
            field="step",
        ),
    )
    min: Annotated[Whole, Field(description="Smallest value.")]
    max: Annotated[Whole, Field(description="Largest value.")]
    scale: Annotated[Scale, Field(description="Log: every doubling is as likely as another.")] = Scale.LINEAR
    step: Annotated[int | None, Field(ge=1, le=2**53, description="Distance of the values from min on. Absent: 1.")] = (
        None
    )


class Choice(Model):
    """One of a few values, without order."""

    rules = (
        Rule(
            cel="self.values.all(v, self.values.exists_one(o, o == v))",
            message="values must be unique",
            holds=lambda c: len(set(c.values)) == len(c.values),
            field="values",
        ),
    )
    values: Annotated[
        list[Value],
        Field(
            min_length=1, max_length=32, description='The values as text: `["resnet18", "resnet50"]`, `["32", "64"]`.'
        ),
    ]


class Condition(Model):
    """A parameter exists only if an earlier choice is one of these."""

    parameter: Annotated[ParameterName, Field(description="An earlier parameter of the list, a choice.")]
    values: Annotated[
        list[Value],
        Field(alias="in", min_length=1, max_length=32, description="Its values for which this parameter exists."),
    ]


class Parameter(Place):
    """One dimension of the search."""

    rules = (
        *Place.rules,
        Rule(
            cel="[has(self.double), has(self.int), has(self.choice)].filter(given, given).size() == 1",
            message="exactly one of double, int and choice must be set",
            holds=lambda p: [p.double, p.int, p.choice].count(None) == 2,
        ),
    )
    name: Annotated[ParameterName, Field(description="Name, as it stands in the results.")]
    double: Annotated[Double | None, Field(description="A range of real numbers.")] = None
    int: Annotated[Int | None, Field(description="A range of whole numbers.")] = None
    choice: Annotated[Choice | None, Field(description="One of a few values.")] = None
    when: Annotated[
        list[Condition] | None,
        Field(
            min_length=1,
            max_length=4,
            description="The parameter exists only where all of these hold. Two parameters with conditions may have one path.",
        ),
    ] = None
