"""Pods in containers on two nodes: network, Services, DNS, logs, limits, volumes, and a node that is lost."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import Cluster, ClusterError
from localcluster.images import BUSYBOX
from tests.kube import Kube, install_crds
from tests.localcluster.conftest import eventually
from tests.localcluster.manifests import job, pod, service
from tests.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.real]

# Debian's static busybox has a wget that crashes; nc does.
ASK = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} {} | tail -1"
SERVE = "mkdir -p /tmp/www && hostname > /tmp/www/index.html && httpd -f -p 8080 -h /tmp/www"


def apply(cluster: Cluster, *manifests: str) -> None:
    for manifest in manifests:
        cluster.kubectl("apply", "-f", "-", input=manifest)


@pytest.fixture(scope="module")
def servers(pair: Cluster) -> Cluster:
    """A server on each node, a headless Service for their names, and one with an address."""
    apply(
        pair,
        service("servers", clusterIP="None", selector={"group": "servers"}, ports=[{"port": 8080}]),
        service("front", selector={"group": "servers"}, ports=[{"port": 80, "targetPort": 8080}]),
    )
    for number in (1, 2):
        manifest = json.loads(pod(f"server-{number}", SERVE, node=f"node-{number}"))
        manifest["metadata"]["labels"]["group"] = "servers"
        manifest["spec"] |= {"hostname": f"server-{number}", "subdomain": "servers"}
        apply(pair, json.dumps(manifest))
    pair.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod", "-l", "group=servers")
    return pair


def ask(cluster: Cluster, pod: str, host: str, port: int) -> str:
    return cluster.kubectl("exec", pod, "--", "sh", "-c", ASK.format(host, port)).strip()


@pytest.mark.parametrize("asking", ["server-1", "server-2"])
@pytest.mark.parametrize("asked", ["server-1", "server-2"])
def test_pods_reach_each_other_by_name_across_nodes(servers: Cluster, asking: str, asked: str) -> None:
    eventually(lambda: ask(servers, asking, f"{asked}.servers", 8080) == asked, f"{asking} reaches {asked}", 15)


@pytest.mark.parametrize("asking", ["server-1", "server-2"])
def test_a_service_leads_to_either_node_and_back_to_the_asker(servers: Cluster, asking: str) -> None:
    answers: set[str] = set()
    eventually(
        lambda: bool(answers.add(ask(servers, asking, "front", 80))) or answers == {"server-1", "server-2"},
        f"{asking} meets both servers",
        15,
    )


def test_a_pod_reaches_the_api_server_by_its_service(servers: Cluster) -> None:
    servers.kubectl("exec", "server-1", "--", "sh", "-c", "nc -w 5 kubernetes.default 443 </dev/null")


def test_logs_exec_and_port_forward(servers: Cluster, tmp_path: Path) -> None:
    apply(servers, pod("talker", "echo to stdout; echo to stderr >&2; sleep 300"))
    servers.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "pod/talker")
    # Two pipes lead to one log: which line comes first is chance.
    eventually(lambda: set(servers.kubectl("logs", "talker").splitlines()) == {"to stdout", "to stderr"}, "logs", 10)
    assert servers.kubectl("exec", "talker", "--", "hostname").strip() == "talker"
    with (tmp_path / "forward").open("w") as log:
        forward = subprocess.Popen(
            [servers.bin / "kubectl", "--kubeconfig", servers.kubeconfig, "port-forward", "pod/server-1", ":8080"],
            stdout=log,
        )
    try:
        eventually(lambda: "Forwarding" in (tmp_path / "forward").read_text(), "the port is forwarded", 15)
        port = (tmp_path / "forward").read_text().split("127.0.0.1:")[1].split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10) as answer:
            assert answer.read().strip() == b"server-1"
    finally:
        forward.terminate()
        forward.wait()


def test_a_container_over_its_limit_is_killed(pair: Cluster) -> None:
    apply(pair, pod("glutton", "x=x; while true; do x=$x$x; done", memory="16Mi"))
    pair.kubectl("wait", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s", "pod/glutton")
    said = pair.kubectl("get", "pod", "glutton", "-o", "jsonpath={.status.containerStatuses[0].state.terminated}")
    assert (json.loads(said)["exitCode"], json.loads(said)["reason"]) == (137, "OOMKilled")


def test_an_indexed_job_completes_with_a_termination_message(pair: Cluster) -> None:
    main = {"image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", "echo done > /dev/termination-log"]}
    apply(pair, job("short", 2, container=main))
    pair.kubectl("wait", "--for=condition=Complete", "--timeout=60s", "job/short")
    messages = "{.items[*].status.containerStatuses[0].state.terminated.message}"
    assert pair.kubectl("get", "pods", "-l", "job-name=short", "-o", f"jsonpath={messages}").split() == ["done"] * 2


def test_volumes_are_shared_by_nodes_and_kept_from_writers(pair: Cluster, tmp_path: Path) -> None:
    (tmp_path / "class-a").mkdir()
    (tmp_path / "class-a/image").write_text("pixels")
    data = pair.volume("data", source=tmp_path, read_only=True)
    runs = pair.volume("runs")
    assert pair.volume("runs") == runs, "idempotent"
    assert pair.volume("data", source=tmp_path, read_only=True) == data
    user = {"securityContext": {"runAsUser": 1234}}
    write = "cp /data/class-a/image /runs/copy && ! touch /data/new && ! rm /data/class-a/image"
    apply(pair, pod("writer", write, node="node-1", mounts=["data", "runs"], **user))
    pair.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s", "pod/writer")
    apply(pair, pod("reader", "cat /runs/copy", node="node-2", mounts=["runs"], **user))
    pair.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s", "pod/reader")
    assert pair.kubectl("logs", "reader") == "pixels"
    assert (runs / "copy").read_text() == "pixels"


def test_an_image_is_imported_once(pair: Cluster, busybox: Path) -> None:
    lines: list[str] = []
    Cluster(pair.name, lines.append).load(busybox)
    assert [line.split(" /")[0] for line in lines] == ["node-1: already has", "node-2: already has"]


COUNT = """\
n=$(cat /runs/step || echo 0); trap 'exit 75' TERM
while [ $n -lt 40 ]; do sleep 0.3 & wait $!; n=$((n + 1)); echo $n >> /runs/steps; echo $n > /runs/step; done
"""


@pytest.fixture
def operator(pair: Cluster, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, beside the cluster."""
    install_crds(Kube(pair.kubeconfig))
    (tmp_path / "profiles.yaml").write_text("default: {resources: {cpu: 10m, memory: 16Mi}}")
    process = OperatorProcess(pair.kubeconfig, tmp_path / "profiles.yaml", tmp_path / "operator.log")
    yield process.start(ready=False)
    process.kill()


def test_a_drained_node_costs_no_restart_and_no_step(pair: Cluster, operator: OperatorProcess) -> None:
    """By kubectl drain: evictions through the API, SIGTERM from the kubelet, the next attempt on the other node."""
    kube, runs = Kube(pair.kubeconfig), pair.volume("counted")
    mounts = [{"claim": "counted", "mountPath": "/runs"}]
    container = {"image": BUSYBOX, "command": ["sh", "-c", COUNT], "launcher": "None", "mounts": mounts}
    body = {"apiVersion": "darkroom.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "counting"}}
    kube.create(body | {"spec": {"container": container, "restart": {"maxRestarts": 0}}}, "default")

    def steps() -> list[int]:
        return [int(line) for line in (runs / "steps").read_text().split()] if (runs / "steps").exists() else []

    eventually(lambda: len(steps()) > 5, "it counts", 180)
    (first,) = kube.list("Pod", "default", "darkroom.dev/training-job=counting")
    node = first["spec"]["nodeName"]
    try:
        flags = ("--force", "--ignore-daemonsets", "--delete-emptydir-data")  # the last: pods have /dev/shm in memory
        pair.kubectl("drain", node, *flags, "--pod-selector=darkroom.dev/training-job=counting")
        eventually(
            lambda: kube.get("TrainingJob", "default", "counting")["status"]["state"] == "Complete", "the end", 180
        )
    finally:
        pair.kubectl("uncordon", node)
    status = kube.get("TrainingJob", "default", "counting")["status"]
    assert [attempt["result"] for attempt in status["attempts"]] == ["Disrupted", "Succeeded"]
    assert (status["restarts"], status["disruptions"]) == (0, 1)
    assert steps() == list(range(1, 41))


def test_a_node_is_lost_and_returns(servers: Cluster) -> None:
    """Last in this file: it takes the pods of node-2 along."""
    servers.stop_node("node-2")
    servers.kubectl("wait", "--for=condition=Ready=Unknown", "node/node-2", "--timeout=60s")
    condition = '{.status.conditions[?(@.type=="DisruptionTarget")].reason}'
    eventually(
        lambda: servers.kubectl("get", "pod", "server-2", "-o", f"jsonpath={condition}") == "DeletionByTaintManager",
        "the pod of the lost node is given up",
    )
    assert ask(servers, "server-1", "server-1.servers", 8080) == "server-1", "the other node goes on"
    servers.start_node("node-2")
    eventually(lambda: not servers.kubectl("get", "pod", "server-2", "--ignore-not-found"), "its pod is gone", 30)
    apply(servers, pod("again", "nc -w 5 server-1.servers 8080 </dev/null", node="node-2"))
    servers.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s", "pod/again")


def test_there_is_no_such_node(pair: Cluster) -> None:
    with pytest.raises(ClusterError, match="only node-1 node-2"):
        pair.stop_node("node-3")
