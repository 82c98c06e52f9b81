"""The forecast's arithmetic: what one measured configuration says about another, and where it says nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom_api.step_times import StepTimes
from darkroom_operator.core.scaling import Range, can_use, duration_at, evaluation_at, fitted_overlap, step_at


def times(**fields: Any) -> StepTimes:
    """One process, 64 images in a second; 1.25 MB of gradients, which 10 Gbit/s carry in a millisecond."""
    known = {
        "nodes": 1,
        "processes": 1,
        "batch": 64,
        "steps_per_epoch": "10",
        "compute": "1",
        "low": "1",
        "high": "1",
        "gradient_bytes": 1_250_000,
    }
    return StepTimes(**known | fields)


TWO = {
    "nodes": 2,
    "processes": 2,
    "compute": "1",
    "communication": "0.1",
    "all_reduce": "0.4",
    "low": "1",
    "high": "1.2",
}


# Ends of a range that was not measured are a tenth further out (MARGIN).
@pytest.mark.parametrize(
    ("measured", "nodes", "expected"),
    [
        pytest.param(times(low="0.9", high="1.3"), 1, (0.9, 1.0, 1.3), id="as measured"),
        # half the images: a tenth, or nothing to three tenths, of the compute does not shrink; then the network
        pytest.param(times(), 2, (0.5 * 0.9, 0.55, (0.65 + 0.01 + 0.002) * 1.1), id="twice the nodes"),
        pytest.param(times(), 8, (0.125 * 0.9, 0.2125, (0.3875 + 0.0175 + 0.014) * 1.1), id="eight times the nodes"),
        pytest.param(times(low="0.8", high="1.5"), 2, (0.4 * 0.9, 0.55, 0.662 * 1.5 * 1.1), id="windows that differ"),
        pytest.param(times(data_wait="1", low="2", high="2"), 2, (1.0 * 0.9, 1.05, 1.662 * 1.1), id="a slow loader"),
        pytest.param(times(micro_batch=64), 2, (0.9, 1.0, 1.012 * 1.1), id="a micro-batch that cannot be shared"),
        pytest.param(times(micro_batch=16, batch=48), 2, (2 / 3 * 0.9, 0.7, 0.7787 * 1.1), id="three micro-batches for two"),
        # alone there is no exchange, and an image costs what it costs
        pytest.param(times(**TWO), 1, (1.7 / 1.1 * 0.9, 1.9, 2.0 * 1.2), id="half the nodes"),
        pytest.param(times(**TWO), 2, (1.0, 1.1, 1.2), id="as measured on two"),
    ],
)  # fmt: skip
def test_step(measured, nodes, expected):
    found = step_at(measured, nodes)
    assert (found.low, found.likely, found.high) == pytest.approx(expected, rel=0.02)


def test_a_measured_network_is_scaled_and_not_assumed():
    found = step_at(times(**TWO), 4)
    slower = step_at(times(**TWO | {"all_reduce": "0.8", "communication": "0.3"}), 4)
    assert found.likely < slower.likely
    assert found.high == pytest.approx((0.65 + 0.8) * 1.2, rel=0.01)  # hops grow with processes, nothing hides
    assert step_at(times(**TWO | {"gradient_bytes": 10**12}), 4) == found


def test_a_network_within_a_node_says_nothing_about_one_between_nodes():
    inside = times(processes=2, compute="1", all_reduce="0.000001")
    assert step_at(inside, 2).high > step_at(inside, 2).likely + 0.01


@pytest.mark.parametrize(
    ("compute", "network", "step", "expected"),
    [
        pytest.param(1.0, 1.0, 2.0, 1.0, id="nothing overlaps"),
        pytest.param(3.0, 4.0, 5.0, 2.0, id="half of it"),
        pytest.param(1.0, 0.5, 1.0, 10.0, id="all of it"),
        pytest.param(1.0, 0.5, 3.0, 1.0, id="more than the sum"),
    ],
)
def test_overlap(compute, network, step, expected):
    assert fitted_overlap(compute, network, step) == pytest.approx(expected, abs=0.01)


def test_a_whole_training():
    """20 steps of a second, two evaluations, three savings of two seconds (every 12 s, and the last), and the start."""
    measured = times(evaluation="2", saving="2", startup="5")
    found = duration_at(measured, nodes=1, epochs=2, save_every=12)
    assert found == Range(*[pytest.approx(20 + 4 + 6 + 5)] * 3)
    assert evaluation_at(measured, 4).likely == pytest.approx(2 * (0.1 + 0.9 / 4))


@pytest.mark.parametrize(
    ("measured", "nodes", "expected"),
    [
        pytest.param(times(batch=4), 4, True, id="an image each"),
        pytest.param(times(batch=4), 8, False, id="fewer images than processes"),
        pytest.param(times(micro_batch=32), 2, True, id="a micro-batch each"),
        pytest.param(times(micro_batch=32), 4, False, id="fewer micro-batches than processes"),
        pytest.param(times(processes=8), 8, True, id="64 processes, 64 images"),
    ],
)
def test_can_use(measured, nodes, expected):
    assert can_use(measured, nodes) is expected


seconds = st.floats(0.000001, 1e5).map(lambda value: f"{value:.6f}")
counts = st.integers(1, 4096)
drawn = {"nodes": counts, "processes": counts, "batch": counts, "micro_batch": st.none() | counts}
drawn |= {"gradient_bytes": st.integers(0, 10**10)}
drawn |= dict.fromkeys(("data_wait", "communication", "all_reduce", "evaluation", "saving", "startup"), seconds)
measurements = st.fixed_dictionaries(drawn | dict.fromkeys(("compute", "low", "high"), seconds)).map(
    lambda f: times(**f)
)


@given(measurements, st.integers(1, 64))
def test_whatever_was_measured_the_likely_lies_within_its_range(measured, nodes):
    found = duration_at(measured, nodes=nodes, epochs=3, save_every=300)
    assert 0 < found.low <= found.likely <= found.high < float("inf")
