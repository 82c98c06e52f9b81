"""How the suite divides over the two processes that scripts/test.sh runs it in.

The tests of a folder share a cluster, so they share a process; the trainer's share nothing and fill the gaps.
"""

from pathlib import Path

import pytest

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
