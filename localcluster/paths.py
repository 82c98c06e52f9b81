"""Where things live outside the checkout: caches that outlast a cluster, and the state that does not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_STATE = ".local/state"


def _home(variable: str, fallback: str) -> Path:
    chosen = os.environ.get(variable, "")
    # The XDG specification says that a relative path is to be ignored.
    return Path(chosen) if Path(chosen).is_absolute() else Path.home() / fallback


def cache_home() -> Path:
    """Binaries, archives and image stores: costly to make, safe to delete while no cluster runs."""
    return _home("XDG_CACHE_HOME", ".cache") / "darkroom"


def clusters_home() -> Path:
    """One folder a cluster, deleted by `down`."""
    return _home("XDG_STATE_HOME", _STATE) / "darkroom" / "clusters"


def name_on_host(cluster: str) -> str:
    """What network namespaces, cgroups and image stores of a cluster are called: they are the host's, and another state
    home may have a cluster of the same name."""
    home = clusters_home()
    if home == Path.home() / _STATE / "darkroom" / "clusters":
        return cluster
    return f"{cluster}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:6]}"
