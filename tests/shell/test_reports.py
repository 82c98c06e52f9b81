"""Who may report for which job: the operator as a process, tokens issued by a real API server for real pods, real TLS."""

import base64
import gzip
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


# --- What nobody would send who means well. ---


def test_a_pod_with_a_broken_label_is_refused(start, kube, namespace):
    """Whoever may create pods may give them our labels."""
    flowers = start()
    labels = flowers.body["metadata"]["labels"] | {names.LABEL_ATTEMPT: "x"}
    meta = {"name": "forged", "labels": {key: labels[key] for key in labels if "darkroom.dev" in key}}
    spec = {"containers": [{"name": "x", "image": "localhost/x:1"}]}
    body = kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, namespace)
    path = f"/v1/training-jobs/{labels[names.LABEL_JOB_UID]}/attempts/x/reports"
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {Reporter(kube, body).token()}\r\n"
    answer = eventually(lambda: (said := send(flowers, f"{request}Content-Length: 2\r\n\r\n{{}}".encode())) and said)
    assert answer.startswith(b"HTTP/1.1 403 "), answer


def connect(pod: Reporter) -> ssl.SSLSocket:
    host, _, port = pod.environ[names.ENV_REPORT_URL].split("/")[2].partition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=30.0))


def send(pod: Reporter, data: bytes) -> bytes:
    """The first line of the answer, if there is any before the connection is closed."""
    with connect(pod) as connection:
        try:
            connection.sendall(data)
            return connection.recv(4096).partition(b"\r\n")[0]
        except (ConnectionError, ssl.SSLError):
            return b""


def resident(operator: OperatorProcess) -> float:
    """MiB of memory."""
    assert operator.process
    text = Path(f"/proc/{operator.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


METHODS = st.sampled_from(
    [b"POST", b"GET", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"PRI", b"\xff"]
)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""])
HEADERS = st.lists(
    st.sampled_from(
        [
            *(b"Content-Type: text/html", b"Content-Type: multipart/form-data", b"Content-Type: \xff"),
            *(
                b"Content-Encoding: gzip",
                b"Content-Encoding: br",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: x",
            ),
            *(
                b"Content-Length: -1",
                b"Content-Length: 99999999999999999999",
                b"Content-Length: 5",
                b"Content-Length: x",
            ),
            *(
                b"Expect: 100-continue",
                b"Upgrade: websocket\r\nConnection: Upgrade",
                b"Connection: close",
                b"Host: \x00",
            ),
            *(b"Authorization: Basic eDp5", b"Authorization: Bearer \xf0", b"Authorization", b"X: " + b"y" * 20_000),
        ]
    ),
    max_size=4,
    unique=True,
)
PATHS = st.sampled_from(
    [b"PATH", b"/", b"*", b"/v1/../../etc", b"/v1/training-jobs/%00/attempts/%ff/reports", b"http://x:y/", b"/\xff"]
)
REQUESTS = st.one_of(
    st.binary(max_size=200).map(lambda data: data + b"\r\n\r\n"),
    st.tuples(METHODS, PATHS, VERSIONS, HEADERS, st.binary(max_size=64)).map(
        lambda parts: b"%b %b %b\r\n%b\r\n%b\r\n\r\n" % (*parts[:3], b"\r\n".join(parts[3]), parts[4])
    ),
)


@given(data=REQUESTS)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_is_answered_with_an_error_of_ours(stranger, data):
    reporter, path, token = stranger
    data = data.replace(b"PATH", path).replace(b"Bearer \xf0", b"Bearer " + token)
    with connect(reporter) as connection:
        connection.settimeout(0.5)  # one that waits for more is left alone
        try:
            connection.sendall(data)
            answer = connection.recv(64)
        except (ConnectionError, ssl.SSLError, TimeoutError):
            return
    assert answer == b"" or answer.startswith(b"HTTP/")
    assert answer[9:10] != b"5", answer


@pytest.fixture
def stranger(start, operator) -> Iterator[tuple[Reporter, bytes, bytes]]:
    """A pod, the path that it reports to and its token; afterwards the operator has nothing to be ashamed of."""
    pod = start()
    yield pod, ("/" + pod.environ[names.ENV_REPORT_URL].split("/", 3)[3]).encode(), pod.token().encode()
    log = operator.log.read_text()
    assert "Traceback" not in log and "Error handling request" not in log, log[-3000:]
    assert operator.fetch("/healthz") == (200, "ok")
    assert pod.post({"sequence": 10**6})[0] in (200, 429)


BOMB = gzip.compress(b'{"sequence": 1, "x": "' + b"x" * 50_000_000 + b'"}')


@pytest.mark.parametrize(
    ("headers", "body", "codes"),
    [
        pytest.param("", b"[" * 30_000, {400}, id="nested"),
        pytest.param("", b'{"x":' * 5_000 + b"1" + b"}" * 5_000, {400}, id="nested objects"),
        pytest.param("", b'{"sequence": 1' + b"0" * 30_000 + b"}", {400}, id="a number of 30,000 digits"),
        pytest.param("", b'{"sequence": 1e999}', {400}, id="infinity"),
        pytest.param("", b'{"sequence": NaN}', {400}, id="not a number"),
        pytest.param("", b'{"sequence": 1, "sequence": {}}', {400}, id="a key twice"),
        pytest.param("", b'{"sequence": 1, "eta\\ud800": 1}', {400}, id="half a character"),
        pytest.param("", b"\xff\xfe{}", {400}, id="not UTF-8"),
        pytest.param("", b"", {400}, id="nothing"),
        pytest.param("Content-Encoding: gzip\r\n", BOMB, {400, 413}, id="a bomb of 50 MB in 50 kB"),
        pytest.param("Content-Encoding: gzip\r\n", b"{}", {400}, id="not gzip"),
        pytest.param("Content-Type: multipart/form-data; boundary=x\r\n", b"--x--", {400}, id="a form"),
    ],
)
def test_no_body_is_too_much(stranger, operator, headers, body, codes):
    pod, path, token = stranger
    before = resident(operator)
    head = f"Host: x\r\n{headers}Authorization: Bearer {token.decode()}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = send(pod, b"POST %b HTTP/1.1\r\n%b%b" % (path, head.encode(), body))
    assert int(answer.split()[1]) in codes, answer
    assert resident(operator) - before < 20


def test_those_who_hang_on_hold_up_nobody(stranger, operator):
    """Half-open connections, bodies that never end, and bodies that are thrown away, while another pod reports."""
    pod, path, token = stranger
    before = resident(operator)
    with ExitStack() as stack:
        for number in range(150):
            connection = stack.enter_context(connect(pod))
            if number % 3:
                head = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: 30000\r\n\r\n{"
                connection.sendall(head % (path, token))
        for _ in range(20):
            assert send(pod, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000) in (
                b"",
                b"HTTP/1.1 404 Not Found",
                b"HTTP/1.1 413 Request Entity Too Large",
            )
        began = time.monotonic()
        assert pod.post({"sequence": 1, "step": 1})[1]["accepted"]
        assert time.monotonic() - began < 5.0
        assert resident(operator) - before < 80  # MiB: 150 connections of TLS, and a megabyte thrown away twenty times
