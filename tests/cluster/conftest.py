"""Real nodes, real containers: the operator runs from its chart inside the cluster, with exactly the chart's rights."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster import Cluster
from scripts.digits import write_digits
from scripts.images import build
from tests.kube import Kube, eventually, new_namespace
from tests.training_job import AppliedJob

ROOT = Path(__file__).resolve().parent.parent.parent
SYSTEM = "darkroom-system"


def install(cluster: Cluster, images: dict[str, str], **values: str) -> None:
    """The chart, by Helm, waiting as a user would."""
    operator, trainer = (images[name].rsplit(":", 1) for name in ("operator", "trainer"))
    settings = {
        "image.repository": operator[0],
        "image.tag": operator[1],
        "trainer.image.repository": trainer[0],
        "trainer.image.tag": trainer[1],
        "profiles.default.terminationGracePeriodSeconds": "15",
        **values,
    }
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = ["helm", "upgrade", "--install", "darkroom", str(ROOT / "charts/darkroom"), "--namespace", SYSTEM]
    environment = os.environ | {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": f"{cluster.bin}{os.pathsep}{os.environ['PATH']}",
    }
    waiting = ["--create-namespace", "--wait", "--timeout", "3m"]
    done = subprocess.run([*command, *waiting, *flags], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def load(cluster: Cluster, name: str) -> str:
    """Build an image and import it into every node; returns its reference."""
    reference = ""
    for archive in build(name):
        cluster.load(archive.path)
        reference = archive.reference
    return reference


@pytest.fixture(scope="session")
def demo() -> subprocess.CompletedProcess[str]:
    """`make demo`, once: the other tests go on in its cluster, where everything is installed."""
    command = [sys.executable, "-m", "scripts.demo"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2400)


@pytest.fixture(scope="session")
def cluster(demo: subprocess.CompletedProcess[str]) -> Cluster:
    """The demo's cluster: one real node."""
    assert demo.returncode == 0, demo.stdout[-6000:] + demo.stderr[-3000:]
    return Cluster("demo")


@pytest.fixture(scope="session")
def kube(cluster: Cluster) -> Kube:
    return Kube(cluster.kubeconfig)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,797 real images, one folder per class."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return folder


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace that enforces the restricted pod security profile."""
    with new_namespace(kube, **{"pod-security.kubernetes.io/enforce": "restricted"}) as name:
        yield name


VISION = {
    "data": {"claim": "digits", "split": {"seed": 7}},
    "model": {"architecture": "resnet18"},
    "imageSize": 32,
    "batchSize": 64,
    "augmentation": {"crop": "Center", "horizontalFlip": "0"},
    "optimizer": {"name": "AdamW", "learningRate": "0.002"},
    "schedule": {"epochs": 2},
    "workers": 0,
}


class Training(AppliedJob):
    """A TrainingJob in a real cluster."""

    def __init__(self, cluster: Cluster, kube: Kube, namespace: str, name: str, **spec: Any) -> None:
        self.cluster = cluster
        defaults: dict[str, Any] = {"resourcesPerNode": {"cpu": "800m", "memory": "1500Mi"}}
        if "container" not in spec:
            defaults |= {"vision": VISION, "checkpoint": {"claim": "runs", "everySeconds": 2}}
        super().__init__(kube, namespace, name, defaults | {"restart": {"backoffSeconds": 1}} | spec)

    def condition(self, kind: str) -> dict[str, str]:
        found = [c for c in self.status.get("conditions", []) if c["type"] == kind]
        return found[0] if found else {"status": "absent", "reason": "", "message": ""}

    def reaches(self, state: str, *, within: float = 120.0) -> dict[str, Any]:
        """Wait for a state; the other end fails at once, with what is known."""

        def there() -> bool:
            status = self.status
            if status.get("finished") and status["state"] != state:
                pytest.fail(f"{self.name}: {json.dumps(status, indent=1)}\n{self.logs()}")
            return status.get("state") == state

        eventually(there, within=within, what=f"{self.name}: {state}; {self.status.get('conditions')}")
        return self.status

    def logs(self) -> str:
        """What the pods of the newest attempt said."""
        selector = f"darkroom.dev/training-job={self.name}"
        return self.cluster.kubectl("-n", self.namespace, "logs", "-l", selector, "--tail=40", "--prefix")

    def trains(self, step: int, *, within: float = 120.0) -> None:
        """Wait until a log line or checkpoint shows that training has come this far."""
        eventually(lambda: self.newest_step >= step, within=within, what=f"{self.name}: step {step}; {self.status}")

    @property
    def newest_step(self) -> int:
        """Step of the newest checkpoint."""
        folder = f"{self.name}-{self.body['metadata']['uid'][:8]}"
        volume = Path(self.cluster.volume("runs", namespace=self.namespace))
        steps = [int(p.name.split("-")[1]) for p in volume.glob(f"{folder}/checkpoints/step-*") if p.is_dir()]
        return max(steps, default=0)


@pytest.fixture
def train(cluster: Cluster, kube: Kube, namespace: str, digits: Path) -> Any:
    """Makes TrainingJobs on claims `digits` and `runs`."""
    cluster.volume("digits", namespace=namespace, source=digits, read_only=True)
    cluster.volume("runs", namespace=namespace)
    return lambda name="flowers", **spec: Training(cluster, kube, namespace, name, **spec)


@pytest.fixture(scope="session")
def trainer_image(kube: Kube) -> str:
    """The reference that the demo's default profile resolved to: an image with Python and torch that is on the node."""
    jobs = kube.list("TrainingJob")
    return next(job["status"]["resolved"]["image"] for job in jobs if job["metadata"]["name"] == "digits")
