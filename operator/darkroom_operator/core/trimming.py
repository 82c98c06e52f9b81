"""What is kept of an object that the API server told of: what a decision looks at, and nothing else.

Half of a pod is its spec, which no decision reads once it is made, and `managedFields` is as long as the rest. With 20,000
pods that is the difference between fitting into the operator's memory limit and not.
"""

from collections.abc import Mapping
from typing import Any

from darkroom_operator.core.types import Body

_KEPT: Mapping[str, tuple[str, ...]] = {"Job": ("completions", "parallelism", "suspend"), "Pod": ("nodeName",)}
"""Fields of `spec`; of other kinds all are kept."""
_SEEN: Mapping[str, tuple[str, ...]] = {
    "Job": ("conditions", "startTime"),
    "Pod": ("conditions", "containerStatuses", "message", "phase", "reason"),
}
"""Fields of `status`."""


def trimmed(body: Body, kind: str = "") -> dict[str, Any]:
    """The object without the rest. kind: for the objects of a list do not say it."""
    kept = dict(body)
    kept["metadata"] = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    for part, fields in (("spec", _KEPT.get(kind)), ("status", _SEEN.get(kind))):
        if fields and part in body:
            kept[part] = {key: body[part][key] for key in fields if key in body[part]}
    return kept


def is_same(old: Body, new: Body) -> bool:
    """Whether two trimmed pictures of an object differ in their version alone."""
    return _unversioned(old) == _unversioned(new)


def _unversioned(body: Body) -> dict[str, Any]:
    meta = {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
    return {**body, "metadata": meta}
