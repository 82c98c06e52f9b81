"""Sums over attempts, and what a new status adds to an old one."""

import pytest

from darkroom_api.v1alpha1.training_job_status import TimeSpent
from darkroom_operator.core.accounting import Growth, add, goodput, growth


@pytest.mark.parametrize(
    ("times", "share"),
    [
        pytest.param(TimeSpent(total="0"), None, id="nothing yet"),
        pytest.param(TimeSpent(total="100", compute="63.2"), "0.63", id="two digits"),
        pytest.param(TimeSpent(total="100", compute="100"), "1.00", id="all of it"),
    ],
)
def test_goodput(times, share):
    assert goodput(times) == share


@pytest.mark.parametrize(
    ("old", "saved", "expected"),
    [
        pytest.param(None, None, None, id="nothing cached"),
        pytest.param(None, 12.5, "12.5", id="the first attempt"),
        pytest.param(TimeSpent(total="9", saved="12.5"), 7.5, "20", id="the second"),
        pytest.param(TimeSpent(total="9", saved="12.5"), None, "12.5", id="one that died without a word"),
    ],
)
def test_what_was_saved_is_summed_and_no_part_of_the_total(old, saved, expected):
    times = add(old, {"compute": 3.0}, saved=saved)
    assert times.saved == expected
    assert times.total == "3"


FIRST = {"nodeHours": "1.0000", "gpuHours": "8.0000", "cost": "3.0000 EUR", "time": {"total": "10", "compute": "6"}}
SECOND = {
    "nodeHours": "1.5000",
    "gpuHours": "12.0000",
    "cost": "4.5000 EUR",
    "time": {"total": "15", "compute": "8", "lostWork": "3"},
}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param({}, FIRST, Growth(1.0, 8.0, 3.0, "EUR", {"compute": 6.0}), id="the first attempt"),
        pytest.param(FIRST, SECOND, Growth(0.5, 4.0, 1.5, "EUR", {"compute": 2.0, "lostWork": 3.0}), id="the second"),
        pytest.param(FIRST, FIRST, Growth(0.0, 0.0, 0.0, "EUR", {"compute": 0.0}), id="no news"),
        pytest.param(
            FIRST, FIRST | {"cost": "1.0000 EUR"}, Growth(0.0, 0.0, 0.0, "EUR", {"compute": 0.0}), id="cheaper"
        ),
        pytest.param({}, {"state": "Pending"}, Growth(0.0, 0.0, 0.0, "", {}), id="nothing ended"),
    ],
)
def test_growth(old, new, expected):
    assert growth(old, new) == expected
