"""How the suite divides over the processes that scripts/test.sh runs it in, what hypothesis may take for slow, and
a namespace for a test.

The tests of a folder share a cluster, so they share a process; the trainer's share nothing and fill the gaps.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.kube import Kube, new_namespace

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # other processes work on this machine meanwhile: time says nothing about a test here

TIERS = ("cluster", "controlplane", "faults", "shell", "localcluster", "chart", "api", "core")
"""Longest first: they begin side by side, and the short ones follow."""


class ByFolder(LoadScopeScheduling):
    """pytest-xdist's way of handing out tests, with folders for scopes."""

    def _split_scope(self, nodeid: str) -> str:
        folder = Path(nodeid).parts[1]
        return folder if folder in TIERS else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    """Called in the process that hands out, once all have collected the same tests."""
    return ByFolder(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders into the order in which they are handed out."""
    order = {tier: number for number, tier in enumerate(TIERS)}
    here = Path(__file__).parent
    items.sort(key=lambda item: order.get(item.path.relative_to(here).parts[0], len(order)))


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace for one test in the cluster of its folder, whose conftest has `kube`: of the session, so not to be shared."""
    with new_namespace(kube) as name:
        yield name
