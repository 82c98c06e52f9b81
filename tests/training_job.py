"""A TrainingJob on a real API server, for tests to look at."""

from typing import Any

from tests.kube import Kube


class AppliedJob:
    """One that the test has made."""

    def __init__(self, kube: Kube, namespace: str, name: str, spec: dict[str, Any]) -> None:
        self.kube, self.namespace, self.name = kube, namespace, name
        head = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}}
        self.body = kube.create(head | {"spec": spec}, namespace)

    @property
    def now(self) -> dict[str, Any]:
        return self.kube.get("TrainingJob", self.namespace, self.name) or {}

    @property
    def status(self) -> dict[str, Any]:
        return self.now.get("status", {})

    def pods(self, attempt: int) -> list[dict[str, Any]]:
        """Of an attempt, by index."""
        selector = f"darkroom.dev/training-job={self.name},darkroom.dev/attempt={attempt}"
        found = self.kube.list("Pod", self.namespace, selector)
        return sorted(found, key=lambda pod: pod["metadata"]["name"])
