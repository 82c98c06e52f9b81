"""Building blocks of every model: naming, bounded scalars, and rules that pydantic and the API server share."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel


@dataclass(frozen=True)
class Rule:
    """A rule across fields, told twice: `cel` for the API server, `holds` for Python. A test keeps them equal.

    `cel` sees the object as `self`; `message` is what the user reads on either side; `field` is where it points.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str | None = None

    def as_schema(self) -> dict[str, str]:
        schema = {"rule": self.cel, "message": self.message}
        return schema | {"fieldPath": f".{self.field}"} if self.field else schema


class Model(BaseModel):
    """Base of every API type: camelCase on the wire, unknown fields refused, values never coerced."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True, use_enum_values=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        """`field: null` leaves a field out, as the API server takes it; an unknown field stays, to be refused."""
        if not isinstance(value, dict):
            return value
        return {key: given for key, given in value.items() if given is not None or key not in cls._known()}

    @classmethod
    @cache
    def _known(cls) -> frozenset[str]:
        """Names of its fields, in Python and on the wire."""
        return frozenset(cls.model_fields) | {field.alias or name for name, field in cls.model_fields.items()}

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self

    @classmethod
    def from_wire(cls, text: str) -> Self:
        """From JSON as a user would write it: Python's own field names count as unknown, as they do in the API server."""
        return cls.model_validate_json(text, by_alias=True, by_name=False)

    def to_wire(self) -> dict[str, Any]:
        """The JSON form as a user would write it: camelCase, absent fields left out."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


def without_nulls(value: Any) -> Any:
    """A map without its null values: the API server drops them too."""
    return {key: given for key, given in value.items() if given is not None} if isinstance(value, dict) else value


def _int_or_string(pattern: str, max_length: int = 32) -> WithJsonSchema:
    return WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": pattern, "maxLength": max_length})


DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]{1,2})?$"
DECIMAL = r"^[0-9]{1,9}(\.[0-9]{1,9})?(e-?[0-9]{1,2})?$"
FRACTION = r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$"

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
ClaimName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
"""Name of a PersistentVolumeClaim in the job's own namespace."""
VolumePath = Annotated[str, Field(max_length=1024, pattern=r"^/([^/.][^/]*(/[^/.][^/]*)*)?$")]
"""A path inside a volume: absolute there, without `.` or `..` segments, so it cannot leave the volume."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Decimal = Annotated[str, Field(max_length=24, pattern=DECIMAL)]
"""A non-negative decimal number in a string, as `"0.001"` or `"1e-3"`: the API has no floats."""
Fraction = Annotated[str, Field(max_length=12, pattern=FRACTION)]
"""A decimal number from 0 to 1 in a string."""
Quantity = Annotated[
    Annotated[int, Field(le=2**63 - 1)] | Annotated[str, Field(max_length=32, pattern=QUANTITY)],
    _int_or_string(QUANTITY),
]
"""A Kubernetes quantity, as `"500m"`, `16Gi` or `2`."""


def whole_number(value: int | str) -> bool:
    """Whether a quantity is a plain count, which is all that devices such as GPUs allow."""
    return isinstance(value, int) or re.fullmatch(r"[0-9]+", value) is not None


def describe_errors(error: ValidationError, root: str) -> list[str]:
    """One line per problem, each with the path of the field as the user wrote it."""
    lines = []
    for problem in error.errors():
        path = ".".join([root, *(str(part) for part in problem["loc"])])
        unknown = problem["type"] == "extra_forbidden"
        text = "no such field in this version" if unknown else problem["msg"].removeprefix("Value error, ")
        lines.append(f"{path}: {text}")
    return lines
