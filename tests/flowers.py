"""A TrainingJob in a real control plane with fake nodes, and what a test does to it and its pods."""

from typing import Any, Self

from tests.kube import Kube, eventually

PROFILES = """
default: {image: "localhost/trainer:test", resources: {cpu: 100m, memory: 64Mi}, terminationGracePeriodSeconds: 5}
pair: {image: "localhost/trainer:test", nodeSelector: {pair: "true"}, resources: {cpu: 100m, memory: 64Mi}}
claims:
  image: "localhost/trainer:test"
  priorityClasses: [urgent]
  resourceClaims: [{name: gpu, resourceClaimTemplateName: one-gpu, accelerators: 1}]
whole-node: {image: "localhost/trainer:test", resources: {cpu: 90, memory: 64Mi}, terminationGracePeriodSeconds: 5}
patient: {image: "localhost/trainer:test", resources: {cpu: 100m, memory: 64Mi}, terminationGracePeriodSeconds: 300}
billed:
  image: "localhost/trainer:test"
  resources: {cpu: 100m, memory: 64Mi, nvidia.com/gpu: 1}
  terminationGracePeriodSeconds: 5
  pricePerAcceleratorHour: "3600"
  currency: EUR
fenced:
  resources: {cpu: 100m, memory: 64Mi}
  terminationGracePeriodSeconds: 5
  networkPolicy: {egress: [{cidr: 10.20.0.0/16, ports: [443]}]}
"""


class Flowers:
    """A TrainingJob in a namespace, and what a test does to it."""

    def __init__(self, kube: Kube, namespace: str, name: str = "flowers", **spec: Any) -> None:
        self.kube, self.namespace, self.name = kube, namespace, name
        container = {"image": "localhost/mine:1", "command": ["torchrun", "train.py"]}
        self.body = kube.create(
            {
                "apiVersion": "darkroom.dev/v1alpha1",
                "kind": "TrainingJob",
                "metadata": {"name": name},
                "spec": {"container": container, "numNodes": 2, "restart": {"backoffSeconds": 0}} | spec,
            },
            namespace,
        )

    @classmethod
    def existing(cls, kube: Kube, namespace: str, name: str = "flowers") -> Self:
        """One that somebody else has made."""
        flowers = cls.__new__(cls)
        flowers.kube, flowers.namespace, flowers.name = kube, namespace, name
        flowers.body = flowers.now
        return flowers

    @property
    def now(self) -> dict[str, Any]:
        return self.kube.get("TrainingJob", self.namespace, self.name) or {}

    @property
    def status(self) -> dict[str, Any]:
        return self.now.get("status", {})

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

    def pods(self, attempt: int) -> list[dict[str, Any]]:
        selector = f"darkroom.dev/training-job={self.name},darkroom.dev/attempt={attempt}"
        found = self.kube.list("Pod", self.namespace, selector)
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

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
