"""How the suite divides over the processes that scripts/test.sh runs it in, and what hypothesis may take for slow.

The tests of a folder share a cluster, so they share a process; the trainer's share nothing and fill the gaps.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # other processes work on this machine meanwhile: time says nothing about a test here

TIERS = ("cluster", "controlplane", "localcluster", "shell", "chart", "api", "core")
"""Longest first: two folders of equal length side by side, short ones behind."""
_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each folder a group of pytest-xdist, before that puts groups into the tests' names."""
    order = {tier: number for number, tier in enumerate(TIERS)}
    for item in items:
        if (tier := _tier(item)) in order:
            item.add_marker(pytest.mark.xdist_group(tier))
    items.sort(key=lambda item: order.get(_tier(item), len(order)))


def _tier(item: pytest.Item) -> str:
    return item.path.relative_to(_HERE).parts[0]
