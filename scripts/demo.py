"""`make demo`: from nothing to a trained model on a real cluster, by `kubectl apply` of one sample.

CLUSTER=embedded (default) uses a cluster of localcluster/ on this machine. CLUSTER=current uses the present kube context;
give images that it can pull in OPERATOR_IMAGE and TRAINER_IMAGE, and claims `digits` and `runs` in the namespace.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import Cluster
from scripts.digits import write_digits
from scripts.images import build

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = os.environ.get("NAMESPACE", "darkroom-demo")
SYSTEM = "darkroom-system"
SAMPLE = ROOT / "deploy/samples/digits.yaml"
JOB = "digits"
WANTED = 0.97
BEGAN = time.monotonic()


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Target:
    """Where the demo runs."""

    environment: dict[str, str]
    operator_image: str
    trainer_image: str

    def run(self, *command: str, given: str | None = None, check: bool = True) -> str:
        """A command's standard output; its errors end the demo."""
        done = subprocess.run(
            command,
            env=self.environment,
            input=given,
            text=True,
            capture_output=True,
            check=False,
        )
        if check and done.returncode:
            raise DemoError(f"{' '.join(command)}\n{done.stderr.strip()}")
        return done.stdout

    def kubectl(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        """kubectl in the demo's namespace."""
        return self.run("kubectl", "--namespace", NAMESPACE, *arguments, given=given, check=check)

    def job(self) -> dict[str, Any]:
        """The TrainingJob as it is now."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "trainingjob", JOB, "-o", "json"))
        return found


def say(text: str) -> None:
    print(f"[demo {time.monotonic() - BEGAN:4.0f}s] {text}", flush=True)


def embedded(name: str = "demo", namespace: str = NAMESPACE) -> Target:
    """A cluster on this machine, with both images and the two volumes in a namespace."""
    say("cluster: Kubernetes on this machine (localcluster, one node)")
    cluster = Cluster(name)
    cluster.up(nodes="real")
    images = {}
    for image in ("operator", "trainer"):
        say(
            f"image: {image} (cold: {'1 minute' if image == 'operator' else 'about 6 minutes, torch is large'}; then seconds)"
        )
        for archive in build(image):
            cluster.load(archive.path)
            images[image] = archive.reference
    say("volumes: 1,797 real images of digits as PNG files in claim digits; claim runs for results")
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder))
        cluster.volume("digits", namespace=namespace, source=Path(folder), read_only=True)
    cluster.volume("runs", namespace=namespace)
    path = f"{cluster.bin}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PATH": path}
    return Target(environment, images["operator"], images["trainer"])


def current() -> Target:
    """The user's own cluster."""
    try:
        target = Target(dict(os.environ), os.environ["OPERATOR_IMAGE"], os.environ["TRAINER_IMAGE"])
    except KeyError as missing:
        raise DemoError(
            f"CLUSTER=current needs {missing.args[0]}: build both images (make images), push them to a registry that "
            "the cluster can pull from, and give OPERATOR_IMAGE and TRAINER_IMAGE"
        ) from None
    context = target.run("kubectl", "config", "current-context").strip()
    say(f"cluster: context {context}, namespace {NAMESPACE}")
    for claim in ("digits", "runs"):
        if not target.kubectl("get", "pvc", claim, "--ignore-not-found", "-o", "name"):
            raise DemoError(
                f"claim {claim!r} is missing in namespace {NAMESPACE}: create claims `digits` (the folders that "
                "`python scripts/digits.py FOLDER` writes) and `runs` (writable from two nodes)"
            )
    return target


def install(target: Target) -> None:
    """The chart, as a platform engineer would."""
    say("install: helm upgrade --install darkroom charts/darkroom")
    operator, trainer = (image.rsplit(":", 1) for image in (target.operator_image, target.trainer_image))
    values = {
        "image.repository": operator[0],
        "image.tag": operator[1],
        "trainer.image.repository": trainer[0],
        "trainer.image.tag": trainer[1],
        "profiles.default.pricePerNodeHour": "0.12",
    }
    settings = [part for key, value in values.items() for part in ("--set-string", f"{key}={value}")]
    target.run(
        *("helm", "upgrade", "--install", "darkroom", str(ROOT / "charts/darkroom"), "--namespace", SYSTEM),
        *("--create-namespace", "--wait", "--timeout", "2m", *settings),
    )


def train(target: Target) -> dict[str, Any]:
    """Apply the sample and follow it to its end."""
    target.kubectl("delete", "trainingjob", JOB, "--ignore-not-found", "--wait")
    say(f"kubectl apply -f {SAMPLE.relative_to(ROOT)}")
    target.kubectl("apply", "-f", str(SAMPLE))
    told, logs = "", None
    while True:
        job = target.job()
        status = job.get("status", {})
        line = _state_line(status)
        if line != told:
            told = line
            say(line)
        if logs is None and status.get("state") == "Running":
            logs = _follow_logs(target, status["attempts"][-1]["job"])
        if status.get("finished"):
            if logs:
                logs.join(timeout=10)
            return job
        time.sleep(0.5)


def _state_line(status: dict[str, Any]) -> str:
    ready: dict[str, str] = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    return f"{status.get('state', 'accepted')}, nodes {status.get('nodes', '-')}: {ready.get('message', '')}"


def _follow_logs(target: Target, job: str) -> threading.Thread:
    """Print the log lines of all nodes while they run: rank 0, which reports, may be on any of them."""

    def follow() -> None:
        selector = f"job-name={job}"
        command = ["kubectl", "--namespace", NAMESPACE, "logs", "--follow", "--selector", selector, "--tail=-1"]
        with subprocess.Popen(command, env=target.environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                print(f"            | {line.rstrip()}", flush=True)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    return thread


def report(target: Target, job: dict[str, Any]) -> int:
    """What the user came for: status, metric, time, cost; and what to try next."""
    status = job["status"]
    print(f"\n$ kubectl get tj -n {NAMESPACE} -o wide")
    print(target.kubectl("get", "tj", "-o", "wide"))
    if status["state"] != "Complete":
        failure = status.get("failure", {})
        print(f"The job failed: {_state_line(status)}\n{failure.get('message', '')}\n{failure.get('logTail', '')}")
        return 1
    metrics = {m["name"]: m["value"] for m in status["progress"].get("metrics", [])}
    accuracy = float(metrics["test/top1"])
    print(f"test accuracy   {accuracy:.4f}   (on images that neither training nor the choice of the epoch saw)")
    print(f"cost            {status.get('cost', 'no price in the profile')}   ({status['nodeHours']} node-hours)\n")
    _print_times(status["time"])
    outputs = status["outputs"]
    print(
        f"\nmodel           claim {outputs['claim']}: {outputs['folder']}/{outputs['model']}   sha256 {outputs['sha256'][:16]}..."
    )
    _print_next_steps()
    if accuracy < WANTED:
        print(f"\ntest accuracy is below {WANTED}")
        return 1
    return 0


def _print_times(times: dict[str, str]) -> None:
    total = float(times["total"])
    print("where the time went")
    for name, seconds in sorted(times.items(), key=lambda item: -float(item[1])):
        if name != "total" and float(seconds) >= 0.05:
            print(
                f"  {name:<14} {float(seconds):7.1f} s  {float(seconds) / total:5.0%}  {'#' * round(40 * float(seconds) / total)}"
            )
    print(f"  {'total':<14} {total:7.1f} s")


def _print_next_steps() -> None:
    lines = (
        "kubectl describe tj digits                        events, attempts, conditions",
        "kubectl explain tj.spec.vision --recursive        every field of the recipe",
        "kubectl apply -f deploy/samples/digits.yaml       after a change of metadata.name and, say, model.architecture",
        'kubectl patch tj NAME --type=merge -p \'{"spec":{"suspend":true}}\'   save, leave, and resume later with false',
    )
    print(
        '\nnext (embedded cluster: eval "$(.venv/bin/python -m localcluster env --name demo)"; namespace '
        + NAMESPACE
        + ")"
    )
    for line in lines:
        print(f"  {line}")


def main(arguments: Sequence[str]) -> int:
    """Run the demo; 0 if the model is as good as promised."""
    if arguments:
        sys.exit(__doc__)
    where = os.environ.get("CLUSTER", "embedded")
    if where not in ("embedded", "current"):
        raise DemoError(f"CLUSTER={where}: must be embedded or current")
    target = current() if where == "current" else embedded()
    install(target)
    return report(target, train(target))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DemoError as error:
        sys.exit(f"demo: {error}")
