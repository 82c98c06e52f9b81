"""A sweep that says `auto`: the full search that it stands for, which does not change once its status tells it.

A newer operator may know a better search; one that is under way keeps its own, or its history would be that of another.
"""

import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from darkroom_api.automl import expand, manifest
from darkroom_api.v1alpha1.auto import AutoSweep
from darkroom_api.v1alpha1.tuning_sweep import TuningSweepSpec


def resolved(raw: Mapping[str, Any], known: str | None) -> TuningSweepSpec:
    """The search of a spec as users write it; `known` is what the status tells already. Raises ValidationError."""
    if "auto" not in raw:
        return TuningSweepSpec.from_wire(json.dumps(raw))
    sweep = AutoSweep.from_wire(json.dumps(raw))
    search = _told(known) or expand(sweep)
    return search.model_copy(update={"parallelism": sweep.parallelism, "suspend": sweep.suspend})


def _told(known: str | None) -> TuningSweepSpec | None:
    try:
        return TuningSweepSpec.from_wire(json.dumps(yaml.safe_load(known)["spec"])) if known else None
    except (ValidationError, yaml.YAMLError, TypeError, KeyError):
        return None  # an older or a newer version wrote it


def told(
    raw: Mapping[str, Any], known: str | None, search: TuningSweepSpec, *, name: str, namespace: str
) -> str | None:
    """The search as it stands in the status, to be applied as it is; None: the spec says it itself."""
    if "auto" not in raw:
        return None
    if known is not None and _told(known) is not None:
        return known
    return yaml.safe_dump(manifest(name, namespace, search), sort_keys=False, width=120)
