"""What time it is for the API server, from answers with whole seconds and unknown ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom_operator.core.clock import CONFIRMATIONS, Offset, Sample, adjusted

HOUR = 3600.0


def answer(offset: float, at: float, *, way: float = 0.0, back: float = 0.0) -> Sample:
    """Made at the monotonic time `at` by a server whose clock is `offset` from ours, after `way` and before `back` seconds."""
    return Sample(at - way, at + back, (offset + at) // 1)


@pytest.mark.parametrize(
    ("known", "sample", "expected"),
    [
        pytest.param(None, Sample(10.0, 10.0, 1000.0), Offset(990.5), id="the first: in the middle of its second"),
        pytest.param(None, Sample(10.0, 14.0, 1000.0), Offset(988.5), id="the first took four seconds, there or back"),
        pytest.param(Offset(990.2), Sample(10.0, 10.0, 1000.0), Offset(990.2), id="nothing new"),
        pytest.param(Offset(989.7), Sample(10.0, 10.0, 1000.0), Offset(990.0), id="a little too early"),
        pytest.param(Offset(991.4), Sample(10.0, 10.0, 1000.0), Offset(991.0), id="a little too late"),
        pytest.param(Offset(990.2, 2), Sample(10.0, 10.0, 1000.0), Offset(990.2), id="two lies are forgotten"),
        pytest.param(Offset(990.2), Sample(10.0, 80.0, 1000.0), Offset(990.2), id="we were paused for long: that says little"),
        pytest.param(Offset(990.2), Sample(10.0, 10.0, 5000.0), Offset(990.2, 1), id="one that is an hour off"),
        pytest.param(Offset(990.2, 2), Sample(10.0, 10.0, 5000.0), Offset(4990.5), id="the third in a row"),
        pytest.param(Offset(990.2, 2), Sample(10.0, 10.0, 100.0), Offset(90.5), id="the third, backwards"),
    ],
)  # fmt: skip
def test_adjusted(known, sample, expected):
    assert adjusted(known, sample) == expected


@given(
    offset=st.floats(-1e9, 1e9),
    calls=st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 0.5), st.floats(0.0, 0.5)), min_size=1, max_size=50),
)
def test_it_is_never_off_by_more_than_the_best_answer_allows(offset, calls):
    """A second and the time of the call."""
    known, at, best = None, 0.0, float("inf")
    for pause, way, back in calls:
        at += pause
        known, best = adjusted(known, answer(offset, at, way=way, back=back)), min(best, 1 + way + back)
        assert abs(known.seconds - offset) <= best + 1e-3


def test_many_answers_tell_more_than_whole_seconds():
    known = None
    for number in range(200):
        known = adjusted(known, answer(0.37, number * 1.013))
    assert known.seconds == pytest.approx(0.37, abs=0.05)


def test_a_clock_that_runs_fast_is_followed():
    """By 500 parts in a million, as a machine's may, asked every 100 seconds for a day."""
    known = None
    for number in range(864):
        at = number * 100.0
        known = adjusted(known, answer(at * 500e-6, at))
        assert abs(known.seconds - at * 500e-6) <= 1.0


def test_a_server_that_was_set_right_is_believed_after_a_few_answers():
    known = adjusted(None, answer(HOUR, 0.0))
    for number in range(CONFIRMATIONS):
        assert known.seconds == pytest.approx(HOUR, abs=0.6)
        known = adjusted(known, answer(0.0, number + 1.0))
    assert known.seconds == pytest.approx(0.0, abs=0.6)
