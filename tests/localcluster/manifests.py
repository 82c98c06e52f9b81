"""Objects that the tests apply, as JSON."""

import json
from typing import Any

from localcluster.images import BUSYBOX


def pod(name: str, command: str, *, node: str | None = None, memory: str | None = None, **spec: Any) -> str:
    """A pod of one busybox container."""
    container: dict[str, Any] = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
    }
    if memory:
        container["resources"] = {"limits": {"memory": memory}}
    if mounts := spec.pop("mounts", None):
        container["volumeMounts"] = [{"name": name, "mountPath": f"/{name}"} for name in mounts]
        spec["volumes"] = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in mounts]
    chosen = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                **chosen,
                **spec,
            },
        }
    )


def service(name: str, **spec: Any) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})


def job(
    name: str, pods: int, annotations: dict[str, str] | None = None, container: dict[str, Any] | None = None
) -> str:
    """An Indexed Job that replaces a pod only after its end, as training does."""
    template = {
        "metadata": {"annotations": annotations or {}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none", **(container or {})}]},
    }
    return json.dumps(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {
                "completions": pods,
                "parallelism": pods,
                "completionMode": "Indexed",
                "backoffLimit": pods,
                "podReplacementPolicy": "Failed",
                "template": template,
            },
        }
    )
