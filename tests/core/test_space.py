"""Values of parameters: as text, within their range, and every combination in order."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom_api.v1alpha1.search_space import Parameter
from darkroom_operator.core.tuning_sweep import space


def double(low: str = "0.0001", high: str = "0.1", **more: str) -> Parameter:
    return Parameter.model_validate_json(_json("x", double={"min": low, "max": high, **more}))


def whole(low: int = 1, high: int = 9, **more: Any) -> Parameter:
    return Parameter.model_validate_json(_json("x", int={"min": low, "max": high, **more}))


def choice(name: str, *values: str, **more: Any) -> Parameter:
    return Parameter.model_validate_json(_json(name, choice={"values": list(values)}, **more))


def _json(name: str, **fields: Any) -> str:
    return json.dumps({"name": name, "env": "A", **fields})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1e-4, "0.0001"),
        (0.000123456789, "0.000123457"),
        (1.23456789e-7, "1.23457e-7"),
        (64.0, "64"),
        (1234567.0, "1234570"),
        (1.5e12, "1.5e12"),
        (-0.25, "-0.25"),
        (0.0, "0"),
    ],
)
def test_number_text(value, text):
    assert space.number_text(value) == text


@given(st.floats(1e-4, 0.1))
def test_a_value_as_text_is_within_the_range(value):
    text = space.text_in(double().double, value)
    assert space.contains(double(), text)
    assert float(text) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("bounds", [("0.12345678", "0.12345679"), ("-1e-9", "-1e-12"), ("0.333333333", "1")])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rounding_never_leaves_a_narrow_range(bounds, share):
    parameter = double(*bounds)
    assert space.contains(parameter, space.from_unit(parameter, share))


@pytest.mark.parametrize(
    ("parameter", "text", "inside"),
    [
        (double(), "0.0001", True),
        (double(), "0.00009", False),
        (double(), "nan", False),
        (double(), "fast", False),
        (double("0", "1", step="0.25"), "0.75", True),
        (double("0", "1", step="0.25"), "0.7", False),
        (whole(), "9", True),
        (whole(), "10", False),
        (whole(), "3.0", False),
        (whole(1, 9, step=4), "5", True),
        (whole(1, 9, step=4), "6", False),
        (choice("m", "a"), "a", True),
        (choice("m", "a"), "b", False),
    ],
)
def test_contains(parameter, text, inside):
    assert space.contains(parameter, text) == inside


@given(
    st.sampled_from([double(), double("-1", "1"), double("0", "1", step="0.25"), whole(), whole(1, 256, scale="Log")]),
    st.floats(0, 1),
)
def test_a_place_in_the_range_and_back(parameter, share):
    text = space.from_unit(parameter, share)
    assert space.contains(parameter, text)
    assert space.from_unit(parameter, space.to_unit(parameter, text)) == text


def test_combinations_leave_out_what_does_not_exist():
    when = [{"parameter": "model", "in": ["big"]}]
    parameters = [choice("model", "small", "big"), choice("drop", "0", "0.5", when=when), whole(1, 2)]
    found = list(space.combinations(parameters))
    assert found == [
        {"model": "small", "x": "1"},
        {"model": "small", "x": "2"},
        {"model": "big", "drop": "0", "x": "1"},
        {"model": "big", "drop": "0", "x": "2"},
        {"model": "big", "drop": "0.5", "x": "1"},
        {"model": "big", "drop": "0.5", "x": "2"},
    ]
    assert all(space.is_complete(parameters, combination) for combination in found)
    assert space.size(parameters, 6) == 6
    assert space.size(parameters, 5) is None
    assert space.size([double()], 100) is None


@pytest.mark.parametrize("chosen", [{"model": "small", "drop": "0"}, {"model": "big"}, {"model": "huge"}, {}])
def test_what_an_annotation_of_somebody_elses_says_is_not_complete(chosen):
    when = [{"parameter": "model", "in": ["big"]}]
    assert not space.is_complete([choice("model", "small", "big"), choice("drop", "0", when=when)], chosen)


def test_steps_of_a_range_that_do_not_reach_its_end():
    parameter = double("0", "1", step="0.3")
    assert list(space.values_of(parameter)) == ["0", "0.3", "0.6", "0.9"]
    assert space.highest(parameter.double) == pytest.approx(0.9)
    assert list(space.values_of(whole(1, 9, step=3))) == ["1", "4", "7"]
