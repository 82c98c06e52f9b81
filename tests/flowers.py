"""A TrainingJob in a real control plane with fake nodes, and what a test does to it and its pods."""

from pathlib import Path
from typing import Any, Self

from tests.kube import Kube, eventually
from tests.training_job import AppliedJob

PROFILES = Path(__file__).with_name("profiles.yaml")
"""What the operators of these tests are started with."""


class Flowers(AppliedJob):
    """A TrainingJob with a container of the user's own, and what a test does to it."""

    def __init__(self, kube: Kube, namespace: str, name: str = "flowers", **spec: Any) -> None:
        container = {"image": "localhost/mine:1", "command": ["torchrun", "train.py"]}
        defaults = {"container": container, "numNodes": 2, "restart": {"backoffSeconds": 0}}
        super().__init__(kube, namespace, name, defaults | spec)

    @classmethod
    def existing(cls, kube: Kube, namespace: str, name: str = "flowers") -> Self:
        """One that somebody else has made."""
        flowers = cls.__new__(cls)
        flowers.kube, flowers.namespace, flowers.name = kube, namespace, name
        flowers.body = flowers.now
        return flowers

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message."""
        for condition in self.status.get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"], condition["message"]
        return "absent", "", ""

    def edit(self, **spec: Any) -> None:
        self.kube.merge("TrainingJob", self.namespace, self.name, {"spec": spec})

    def reaches(self, state: str, *, within: float = 30.0) -> dict[str, Any]:
        """Wait for a state; returns the status."""
        eventually(
            lambda: self.status.get("state") == state, within=within, what=f"{self.name}: {state}: {self.status}"
        )
        return self.status

    def end(self, attempt: int, *codes: int, **annotations: str) -> None:
        """End the pods of an attempt by index, as KWOK is told by annotation."""
        eventually(lambda: len(self.pods(attempt)) >= len(codes), what=f"pods of attempt {attempt}")
        for pod, code in zip(self.pods(attempt), codes, strict=False):
            prefix = "localcluster.darkroom.dev/"
            notes = {f"{prefix}exit-code": str(code)} | {
                f"{prefix}{k.replace('_', '-')}": v for k, v in annotations.items()
            }
            patch = {"metadata": {"annotations": notes}}
            self.kube.merge("Pod", self.namespace, pod["metadata"]["name"], patch)
