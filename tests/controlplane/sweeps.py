"""A TuningSweep in a real control plane, and what a test does to it and its trials."""

import json
from collections.abc import Callable
from typing import Any

from darkroom_api import names
from darkroom_api.report import Metric, Reason, TerminationMessage
from darkroom_api.v1alpha1 import trial_paths
from tests.kube import Kube, eventually

SPACE = [
    {"name": "lr", "env": "LR", "double": {"min": "0.0001", "max": "0.1", "scale": "Log"}},
    {"name": "width", "env": "WIDTH", "int": {"min": 1, "max": 64}},
]

RATE = "vision.optimizer.learningRate"
WORD_PATHS = [
    path
    for path, kinds in sorted(trial_paths.PATHS.items())
    if kinds == {str} and path.startswith("vision.") and path != RATE
]
LONG = "x" * 256


class Search:
    """A sweep named search over containers that never run: KWOK plays their pods, and tests say how they end."""

    def __init__(self, kube: Kube, namespace: str, **spec: Any) -> None:
        self.kube, self.namespace = kube, namespace
        template = {"container": {"image": "localhost/mine:1", "launcher": "None"}, "restart": {"backoffSeconds": 0}}
        defaults: dict[str, Any] = {
            "objectives": [{"metric": "val/top1"}],
            "parameters": SPACE,
            "algorithm": {"name": "TPE", "seed": 7},
            "stopping": {"maxTrials": 4},
            "parallelism": 2,
            "trialTemplate": {"spec": template | spec.pop("template", {})},
        }
        head = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TuningSweep", "metadata": {"name": "search"}}
        self.body = kube.create(head | {"spec": defaults | spec}, namespace)

    @property
    def status(self) -> dict[str, Any]:
        return (self.kube.get("TuningSweep", self.namespace, "search") or {}).get("status", {})

    @property
    def ready(self) -> tuple[str, str]:
        """Reason and message."""
        found = [c for c in self.status.get("conditions", []) if c["type"] == "Ready"]
        return (found[0]["reason"], found[0]["message"]) if found else ("", "")

    def edit(self, **spec: Any) -> None:
        self.kube.merge("TuningSweep", self.namespace, "search", {"spec": spec})

    def reaches(self, state: str, *, within: float = 60.0) -> dict[str, Any]:
        eventually(lambda: self.status.get("state") == state, within=within, what=f"state {state}: {self.status}")
        return self.status

    def trials(self) -> dict[str, dict[str, Any]]:
        """TrainingJobs by name."""
        jobs = self.kube.list("TrainingJob", self.namespace, "darkroom.dev/tuning-sweep=search")
        return {job["metadata"]["name"]: job for job in jobs}

    def running(self) -> list[str]:
        """Trials whose pods run."""
        return sorted(name for name, job in self.trials().items() if job.get("status", {}).get("state") == "Running")

    def pod(self, trial: str) -> dict[str, Any]:
        """The one pod of a trial's newest attempt."""
        return eventually(
            lambda: (
                (
                    found := [
                        pod
                        for pod in self.kube.list("Pod", self.namespace, f"darkroom.dev/training-job={trial}")
                        if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] == "Running"
                    ]
                )
                and found[-1]
            ),
            what=f"a pod of {trial}",
        )

    def end(self, trial: str, code: int = 0, reason: Reason = Reason.COMPLETED, **metrics: str) -> None:
        """A trial's pod ends with these metrics in its last words."""
        told = [Metric(name=name.replace("_", "/"), value=value) for name, value in metrics.items()]
        said = TerminationMessage(reason=reason, exit_code=code, metrics=told).encode()
        prefix = "localcluster.darkroom.dev/"
        notes = {f"{prefix}exit-code": str(code), f"{prefix}termination-message": said}
        pod = self.pod(trial)["metadata"]["name"]
        self.kube.merge("Pod", self.namespace, pod, {"metadata": {"annotations": notes}})

    def score(self, trial: str) -> str:
        """What a trial of these parameters reaches: the better, the nearer lr is to 0.01."""
        text = self.trials()[trial]["metadata"]["annotations"][names.ANNOTATION_PARAMETERS]
        lr = float(json.loads(text)["lr"])
        return f"{1 - abs(lr - 0.01):.6f}"

    def play(self, until: Callable[[], Any], *, within: float = 120.0, tick: Callable[[], Any] = lambda: None) -> None:
        """End each trial well as soon as it runs, until something holds."""
        ended: set[str] = set()

        def step() -> Any:
            tick()
            for name in self.running():
                if name not in ended and names.LABEL_TRIAL in self.trials()[name]["metadata"]["labels"]:
                    self.end(name, val_top1=self.score(name))
                    ended.add(name)
            return until()

        eventually(step, within=within, what=f"{self.status}")


class Hopeless:
    """A sweep of no valid combination, so that many trials fit into seconds: each fails at once, with a row of 6 kB."""

    def __init__(self, kube: Kube, namespace: str, trials: int) -> None:
        self.kube, self.namespace = kube, namespace
        wide = [{"name": path, "path": path, "choice": {"values": [LONG]}} for path in WORD_PATHS[:20]]
        rate = {"name": "lr", "path": RATE, "double": {"min": "0", "max": "1"}}
        spec = {
            "objectives": [{"metric": "val/top1"}],
            "parameters": [*wide, rate],
            "algorithm": {"name": "Random", "seed": 7},
            "stopping": {"maxTrials": trials, "maxFailedTrials": 10_000},
            "trialTemplate": {"spec": {"vision": {"data": {"claim": "x"}, "model": {"architecture": "resnet18"}}}},
        }
        head = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TuningSweep", "metadata": {"name": "long"}}
        self.body = kube.create(head | {"spec": spec}, namespace)

    @property
    def status(self) -> dict[str, Any]:
        return (self.kube.get("TuningSweep", self.namespace, "long") or {}).get("status", {})

    def pages(self) -> list[dict[str, Any]]:
        """Its ConfigMaps, oldest first."""
        found = self.kube.list("ConfigMap", self.namespace, "darkroom.dev/tuning-sweep=long")
        return sorted(found, key=lambda page: page["metadata"]["name"])

    def numbers(self) -> list[int]:
        """Of all recorded trials, where the status says that they are."""
        listed = [entry["name"] for entry in self.status.get("ledgerPages", [])]
        pages = {page["metadata"]["name"]: page for page in self.pages()}
        rows = [json.loads(line) for name in listed for line in pages[name]["data"]["rows"].splitlines()]
        return [row["number"] for row in (*rows, *self.status["ledger"])]
