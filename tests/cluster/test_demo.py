"""`make demo` itself."""

import re

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.real, pytest.mark.timeout(2700)]


def test_the_demo_ends_with_what_the_user_came_for(demo):
    assert demo.returncode == 0, demo.stdout[-6000:] + demo.stderr[-3000:]
    accuracy = float(re.search(r"test accuracy\s+([0-9.]+)", demo.stdout)[1])
    assert accuracy >= 0.97
    assert re.search(r"digits\s+Complete\s+0/2\s+100", demo.stdout)
    assert re.search(r"cost\s+[0-9.]+ USD", demo.stdout)
    rows = dict(re.findall(r"^  (\w+)\s+([0-9.]+) s", demo.stdout, re.M))
    total = float(rows.pop("total"))
    assert abs(sum(map(float, rows.values())) - total) < 1.5  # rows under 0.05 s are left out, each is rounded
    assert float(rows["compute"]) > 0
