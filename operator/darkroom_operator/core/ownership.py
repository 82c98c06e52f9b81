"""What makes an object the child of one of ours: it goes with it, and no other controller takes it for its own."""

from collections.abc import Mapping
from typing import Any

from darkroom_api import names


def child_metadata(
    kind: str, owner: str, uid: str, *, namespace: str, name: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    """Metadata of an object `name`, whose owner is our object of this kind, name and UID."""
    reference = {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "name": owner,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"name": name, "namespace": namespace, "labels": dict(labels), "ownerReferences": [reference]}


def sweep_child_metadata(sweep: str, uid: str, *, namespace: str, name: str) -> dict[str, Any]:
    """Of what a TuningSweep makes: it is found by the sweep's labels."""
    labels = {
        names.LABEL_SWEEP: sweep,
        names.LABEL_SWEEP_UID: uid,
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
    }
    return child_metadata("TuningSweep", sweep, uid, namespace=namespace, name=name, labels=labels)
