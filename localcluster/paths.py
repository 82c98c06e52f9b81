"""Where things live outside the checkout: caches that outlast a cluster, and the state that does not."""

from __future__ import annotations

import os
from pathlib import Path


def _home(variable: str, fallback: str) -> Path:
    chosen = os.environ.get(variable, "")
    # The XDG specification says that a relative path is to be ignored.
    return Path(chosen) if Path(chosen).is_absolute() else Path.home() / fallback


def cache_home() -> Path:
    """Binaries, archives and image stores: costly to make, safe to delete while no cluster runs."""
    return _home("XDG_CACHE_HOME", ".cache") / "darkroom"


def clusters_home() -> Path:
    """One folder a cluster, deleted by `down`."""
    return _home("XDG_STATE_HOME", ".local/state") / "darkroom" / "clusters"
