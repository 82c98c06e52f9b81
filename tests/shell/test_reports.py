"""Who may report for which job: the operator as a process, tokens issued by a real API server for real pods, real TLS."""

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import jwt
import pytest

from darkroom_api import names
from darkroom_api.report import MAX_REPORT_BYTES
from localcluster import Cluster
from tests.kube import Kube, eventually
from tests.operator_process import OperatorProcess, free_port
from tests.report_server import Reporter

pytestmark = pytest.mark.cluster
PROFILES = "default: {image: 'localhost/trainer:1', resources: {cpu: 100m, memory: 64Mi}}\n"
SECRET = "reports"


@pytest.fixture(scope="module")
def secrets(kube: Kube) -> Iterator[str]:
    """The namespace of the Secret, which the chart would make."""
    name = "reports-operator"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}}, name)
    yield name
    kube.delete("Namespace", None, name)


@pytest.fixture(scope="module")
def operator(cluster: Cluster, kube: Kube, secrets: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An operator that takes reports."""
    folder, port = tmp_path_factory.mktemp("reports"), free_port()
    (folder / "profiles.yaml").write_text(PROFILES)
    settings = {
        "DARKROOM_REPORTS_ADDRESS": f"127.0.0.1:{port}",
        "DARKROOM_REPORTS_PORT": str(port),
        "DARKROOM_REPORTS_SECRET": f"{secrets}/{SECRET}",
    }
    with OperatorProcess(cluster.kubeconfig, folder / "profiles.yaml", folder / "operator.log", **settings) as operator:
        eventually(lambda: (kube.get("Secret", secrets, SECRET) or {}).get("data"), what="a certificate")
        eventually(lambda: _shake(port) == b"", what="the server")
        yield operator


def _shake(port: int) -> bytes:
    """Nothing, once somebody listens with TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)) as connection:
        try:
            connection.connect()
        except OSError as error:
            return str(error).encode()
    return b""


@pytest.fixture
def start(kube: Kube, operator: OperatorProcess, namespace: str) -> Callable[..., Reporter]:
    """Apply a TrainingJob; its pod, once the Job controller has made it."""

    def started(name: str = "flowers") -> Reporter:
        container = {"image": "localhost/mine:1", "command": ["train"]}
        body = {"apiVersion": names.API_VERSION, "kind": "TrainingJob", "spec": {"container": container}}
        kube.create(body | {"metadata": {"name": name}}, namespace)

        def made() -> Any:
            return kube.list("Pod", namespace, f"{names.LABEL_JOB}={name}")

        (pod,) = eventually(made, what=f"a pod of {name}")
        eventually(lambda: status(kube, namespace, name).get("attempts"), what="the attempt on record")
        return Reporter(kube, pod)

    return started


def status(kube: Kube, namespace: str, name: str = "flowers") -> dict[str, Any]:
    return (kube.get("TrainingJob", namespace, name) or {}).get("status", {})


def test_a_report_of_a_pod_becomes_the_progress_of_its_job(start, kube, namespace, operator):
    pod = start()
    metrics = [{"name": "val/top1", "value": "0.9"}]
    code, answer = pod.post({"sequence": 1, "step": 5, "steps": 20, "etaSeconds": 90, "metrics": metrics})
    assert (code, answer) == (200, {"version": 1, "action": "continue", "accepted": True})
    progress = eventually(lambda: status(kube, namespace).get("progress"), what="progress")
    assert (progress["percent"], progress["eta"], progress["metrics"]) == (25, "90s", metrics)
    assert 'darkroom_live_reports_total{result="accepted"}' in operator.fetch("/metrics")[1]
    spec = pod.body["spec"]
    assert not spec["automountServiceAccountToken"]
    (volume,) = [v for v in spec["volumes"] if v["name"] == "report"]
    assert volume["projected"]["sources"] == [
        {"serviceAccountToken": {"path": "token", "audience": names.REPORT_AUDIENCE, "expirationSeconds": 3600}}
    ]


def test_what_is_old_is_ignored(start):
    pod = start()
    assert pod.post({"sequence": 7, "step": 5})[1]["accepted"]
    for sequence in (7, 6):
        assert pod.post({"sequence": sequence, "step": 4}) == (
            200,
            {"version": 1, "action": "continue", "accepted": False, "reason": "a newer report is known"},
        )


def test_suspension_is_a_reply_first(start, kube, namespace):
    pod = start()
    pod.post({"sequence": 1, "step": 5})
    kube.merge("TrainingJob", namespace, "flowers", {"spec": {"suspend": True}})
    eventually(lambda: status(kube, namespace)["attempts"][0].get("yieldTime"), what="asked")
    code, answer = pod.post({"sequence": 2, "step": 6})
    assert (code, answer["action"]) == (200, "yield")
    assert "suspending" in answer["reason"]
    assert "deletionTimestamp" not in kube.get("Job", namespace, "flowers-1")["metadata"]


def test_a_pod_reports_for_its_own_job_alone(start):
    flowers, birds = start(), start("birds")
    code, answer = birds.post({"sequence": 1}, like=flowers)
    assert (code, answer["error"]) == (403, "the token's pod belongs to another TrainingJob or attempt")
    assert birds.post({"sequence": 1})[0] == 200


def test_a_pod_of_nobodys_is_refused(start, kube, namespace):
    flowers = start()
    container = {"name": "x", "image": "localhost/x:1"}
    meta = {"name": "stranger"}
    body = kube.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}, namespace
    )
    code, answer = Reporter(kube, body).post({"sequence": 1}, like=flowers)
    assert (code, answer["error"]) == (403, "the token's pod is none of a TrainingJob's, or gone")


def test_an_attempt_that_is_over_is_refused_once_its_pods_are_gone(start, kube, namespace):
    old = start()
    token = old.token()
    kube.delete("Job", namespace, "flowers-1")

    def second() -> Any:
        return kube.list("Pod", namespace, f"{names.LABEL_JOB}=flowers,{names.LABEL_ATTEMPT}=2")

    (body,) = eventually(second, within=30, what="a second attempt")
    assert old.post({"sequence": 99}, token)[0] == 403
    new = Reporter(kube, body)
    assert new.post({"sequence": 1}, like=old)[0] == 403  # with the address of the old one
    assert new.post({"sequence": 1})[1]["accepted"]


@pytest.mark.parametrize(
    ("token", "said"),
    [
        pytest.param(lambda _: "", "no bearer token", id="none"),
        pytest.param(lambda _: "x.y.z", "Invalid", id="no token"),
        pytest.param(lambda pod: pod.token("https://kubernetes.default.svc"), "Audience doesn't match", id="audience"),
        pytest.param(lambda pod: pod.token(bound=False), "not bound to a pod", id="not of a pod"),
        pytest.param(lambda pod: unsigned(pod.token()), "key that the cluster does not publish", id="unsigned"),
        pytest.param(lambda pod: tampered(pod.token()), "verification failed", id="tampered"),
    ],
)
def test_a_token_that_proves_nothing_is_refused(start, token, said):
    pod = start()
    code, answer = pod.post({"sequence": 1}, token(pod))
    assert code == 401
    assert said in answer["error"]


def unsigned(token: str) -> str:
    return jwt.encode(jwt.decode(token, options={"verify_signature": False}), None, algorithm="none")


def tampered(token: str) -> str:
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["kubernetes.io"]["pod"]["name"] = "another"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{head}.{forged}.{signature}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"exp": 1_700_000_000}, "expired", id="expired"),
        pytest.param({"nbf": 4_000_000_000}, "not yet valid", id="of the future"),
        pytest.param({"iss": "https://elsewhere"}, "Invalid issuer", id="of another cluster"),
        pytest.param({"exp": None}, 'missing the "exp" claim', id="for ever"),
    ],
)
def test_a_token_of_the_clusters_own_key_must_be_for_here_and_now(start, cluster, changes, said):
    """The API server issues none like these, so they are signed with its key."""
    pod = start()
    real = pod.token()
    claims = jwt.decode(real, options={"verify_signature": False}) | changes
    key = (cluster.state / "pki/service-account.key").read_text()
    header = jwt.get_unverified_header(real)
    claims = {name: value for name, value in claims.items() if value is not None}
    forged = jwt.encode(claims, key, algorithm=header["alg"], headers={"kid": header["kid"]})
    code, answer = pod.post({"sequence": 1}, forged)
    assert code == 401
    assert said in answer["error"]


def test_a_report_that_is_too_large_is_not_read(start):
    pod = start()
    code, answer = pod.post(b'{"sequence": 1, "x": "' + b"x" * MAX_REPORT_BYTES + b'"}')
    assert (code, answer["error"]) == (413, f"more than {MAX_REPORT_BYTES} bytes")


@pytest.mark.parametrize("said", [pytest.param(b"", id="nothing"), pytest.param(b"POST /v1/tra", id="half a line")])
def test_a_connection_that_says_nothing_is_closed(start, said):
    host, _, port = start().environ[names.ENV_REPORT_URL].split("/")[2].partition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), timeout=30) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(said)
        assert connection.recv(1) == b""


def test_a_report_that_makes_no_sense_is_told_why(start):
    code, answer = start().post({"sequence": 1, "step": "many"})
    assert code == 400
    assert "step" in answer["error"]


def test_a_pod_that_reports_too_often_is_slowed_down_alone(start):
    flowers, birds = start(), start("birds")
    token = flowers.token()
    codes = [flowers.post({"sequence": number}, token)[0] for number in range(1, 60)]
    assert 429 in codes
    assert codes[:5] == [200] * 5
    assert birds.post({"sequence": 1})[0] == 200


def test_an_operator_that_starts_again_shows_the_same_certificate(start, kube, operator, secrets, namespace):
    pod = start()
    assert pod.post({"sequence": 5, "step": 1})[1]["accepted"]
    before = kube.get("Secret", secrets, SECRET)["data"]
    operator.stop()
    operator.start()
    eventually(
        lambda: pod.try_to_post({"sequence": 6, "step": 2})[0] == 200, what="the server again"
    )  # by the authority that the pod knows
    assert kube.get("Secret", secrets, SECRET)["data"] == before
