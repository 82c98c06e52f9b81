"""The search space: which parameters a configuration has, what values they may take, and every combination in order."""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice

from darkroom_api.v1alpha1.search_space import Double, Int, Parameter, Scale

Configuration = Mapping[str, str]
"""Values by parameter name, each as the text that goes into the trial's spec."""
DIGITS = 6
"""Significant digits of a value of a real range: what a sampler asks for beyond them makes no difference to a training."""


def active(parameters: Sequence[Parameter], chosen: Configuration) -> Iterator[Parameter]:
    """Parameters in their order, each if its conditions hold in `chosen`; looked at lazily, so `chosen` may grow meanwhile."""
    for parameter in parameters:
        if all(chosen.get(condition.parameter) in condition.values for condition in parameter.when or []):
            yield parameter


def number_text(value: float) -> str:
    """A real number as the API writes it: plain digits, or with an exponent where it is very small or large."""
    rounded = Decimal(f"{value:.{DIGITS}g}")
    plain = format(rounded, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    whole, _, part = plain.lstrip("-").partition(".")
    return plain if len(whole) <= 9 and len(part) <= 9 else f"{rounded:e}".replace("+", "").lower()


def highest(double: Double) -> float:
    """The largest value that a range of real numbers has: with a step, it may lie below `max`."""
    if double.step is None:
        return float(double.max)
    low, step = Decimal(double.min), Decimal(double.step)
    return float(low + (Decimal(double.max) - low) // step * step)


def text_in(double: Double, value: float) -> str:
    """A value of the range as text; rounding never leaves the range."""
    text = number_text(value)
    low, high = float(double.min), highest(double)
    if float(text) < low:
        return number_text(low) if float(number_text(low)) >= low else double.min
    if float(text) > high:
        return number_text(high) if float(number_text(high)) <= high else double.max
    return text


def contains(parameter: Parameter, text: str) -> bool:
    """Whether the parameter may have this value."""
    if parameter.choice:
        return text in parameter.choice.values
    try:
        value = Decimal(text)
    except InvalidOperation:
        return False
    if parameter.int:
        step = parameter.int.step or 1
        within = parameter.int.min <= value <= parameter.int.max
        return within and text == str(int(value)) and (int(value) - parameter.int.min) % step == 0
    return parameter.double is not None and _in_double(parameter.double, value)


def _in_double(double: Double, value: Decimal) -> bool:
    if not value.is_finite() or not Decimal(double.min) <= value <= Decimal(double.max):
        return False
    if double.step is None:
        return True
    steps = (value - Decimal(double.min)) / Decimal(double.step)
    return abs(steps - round(steps)) < Decimal("1e-6")


def is_complete(parameters: Sequence[Parameter], chosen: Configuration) -> bool:
    """Whether a recorded configuration has exactly the parameters that it should have, each within its range."""
    wanted = {p.name: p for p in active(parameters, chosen)}
    return wanted.keys() == chosen.keys() and all(contains(p, chosen[name]) for name, p in wanted.items())


def combinations(parameters: Sequence[Parameter]) -> Iterator[dict[str, str]]:
    """Every configuration in order, the last parameter fastest; ranges of real numbers must have a step."""
    yield from _from(parameters, 0, {})


def _from(parameters: Sequence[Parameter], index: int, chosen: dict[str, str]) -> Iterator[dict[str, str]]:
    if index == len(parameters):
        yield dict(chosen)
        return
    parameter = parameters[index]
    if not any(True for _ in active([parameter], chosen)):
        yield from _from(parameters, index + 1, chosen)
        return
    for text in values_of(parameter):
        yield from _from(parameters, index + 1, {**chosen, parameter.name: text})


def values_of(parameter: Parameter) -> Iterator[str]:
    """Every value of a parameter without a continuous range."""
    if parameter.choice:
        yield from parameter.choice.values
    elif parameter.int:
        yield from map(str, range(parameter.int.min, parameter.int.max + 1, parameter.int.step or 1))
    elif parameter.double and parameter.double.step:
        low, step = Decimal(parameter.double.min), Decimal(parameter.double.step)
        for index in range(int((Decimal(parameter.double.max) - low) // step) + 1):
            yield number_text(float(low + index * step))
    else:
        raise ValueError(f"{parameter.name} has no end of values")


def size(parameters: Sequence[Parameter], limit: int) -> int | None:
    """Number of combinations; None if it is more than `limit`."""
    if any(parameter.double and not parameter.double.step for parameter in parameters):
        return None
    count = sum(1 for _ in islice(combinations(parameters), limit + 1))
    return count if count <= limit else None


def to_unit(parameter: Parameter, text: str) -> float:
    """A number's place in its range, from 0 to 1; whole numbers in the middle of the piece that rounds to them."""
    low, high, log = _bounds(parameter)
    value = float(text)
    return _share(math.log(value), math.log(low), math.log(high)) if log else _share(value, low, high)


def from_unit(parameter: Parameter, share: float) -> str:
    """The value at a place in the range."""
    low, high, log = _bounds(parameter)
    value = math.exp(_between(share, math.log(low), math.log(high))) if log else _between(share, low, high)
    if parameter.int:
        step = parameter.int.step or 1
        steps = round((value - parameter.int.min) / step)
        return str(parameter.int.min + step * min(max(steps, 0), (parameter.int.max - parameter.int.min) // step))
    if parameter.double and parameter.double.step:
        values = list(values_of(parameter))
        return min(values, key=lambda text: abs(float(text) - value))
    if parameter.double is None:
        raise ValueError(f"{parameter.name} is no number")
    return text_in(parameter.double, value)


def _bounds(parameter: Parameter) -> tuple[float, float, bool]:
    if isinstance(parameter.int, Int):
        half = (parameter.int.step or 1) / 2
        return parameter.int.min - half, parameter.int.max + half, parameter.int.scale == Scale.LOG
    if parameter.double is None:
        raise ValueError(f"{parameter.name} is no number")
    return float(parameter.double.min), float(parameter.double.max), parameter.double.scale == Scale.LOG


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)


def _between(share: float, low: float, high: float) -> float:
    return low + min(max(share, 0.0), 1.0) * (high - low)
