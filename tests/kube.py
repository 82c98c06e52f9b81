"""A small synchronous client for tests: JSON in and out, straight to the API server, with the admin's certificate."""

import base64
import contextlib
import itertools
import json
import os
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from darkroom_api.crd import all_crds

PATHS = {
    "TuningSweep": "/apis/darkroom.dev/v1alpha1",
    "TrainingJob": "/apis/darkroom.dev/v1alpha1",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1",
    "Deployment": "/apis/apps/v1",
    "Job": "/apis/batch/v1",
    "Event": "/apis/events.k8s.io/v1",
    "PriorityClass": "/apis/scheduling.k8s.io/v1",
    "DeviceClass": "/apis/resource.k8s.io/v1",
    "ResourceSlice": "/apis/resource.k8s.io/v1",
    "ResourceClaim": "/apis/resource.k8s.io/v1",
    "ResourceClaimTemplate": "/apis/resource.k8s.io/v1",
    "NetworkPolicy": "/apis/networking.k8s.io/v1",
    **dict.fromkeys(
        ("ClusterQueue", "LocalQueue", "ResourceFlavor", "Topology", "Workload", "WorkloadPriorityClass"),
        "/apis/kueue.x-k8s.io/v1beta2",
    ),
    "Lease": "/apis/coordination.k8s.io/v1",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1",
}
CLUSTER_SCOPED = (
    *("Namespace", "Node", "CustomResourceDefinition", "PersistentVolume"),
    *("PriorityClass", "DeviceClass", "ResourceSlice"),
    *("ClusterRole", "ClusterRoleBinding"),
    *("ClusterQueue", "ResourceFlavor", "Topology", "WorkloadPriorityClass"),
)
PLURALS = {
    "Endpoints": "endpoints",
    "PriorityClass": "priorityclasses",
    "DeviceClass": "deviceclasses",
    "NetworkPolicy": "networkpolicies",
    "Topology": "topologies",
    "WorkloadPriorityClass": "workloadpriorityclasses",
}


class Refused(Exception):  # noqa: N818 - reads as what happened
    """The API server's answer to a request that it did not carry out."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Kube:
    """Requests to one API server."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        self.server: str = config["clusters"][0]["cluster"]["server"]
        self.context = self._tls(config["clusters"][0]["cluster"], config["users"][0]["user"], kubeconfig.parent)

    @staticmethod
    def _tls(cluster: dict[str, str], user: dict[str, str], folder: Path) -> ssl.SSLContext:
        def content(source: dict[str, str], key: str) -> bytes:
            if f"{key}-data" in source:
                return base64.b64decode(source[f"{key}-data"])
            return (folder / source[key]).read_bytes()

        context = ssl.create_default_context(cadata=content(cluster, "certificate-authority").decode())
        with tempfile.NamedTemporaryFile() as both:
            both.write(content(user, "client-certificate") + content(user, "client-key"))
            both.flush()
            context.load_cert_chain(both.name)
        return context

    def request(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", user: str = ""
    ) -> dict[str, Any]:
        """One request, as another user if one is named; Refused carries the API server's message."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind} | ({"Impersonate-User": user} if user else {})
        request = urllib.request.Request(self.server + path, data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=30) as response:  # noqa: S310
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            message = json.loads(text).get("message", text) if text.startswith("{") else text
            raise Refused(error.code, message) from None

    @staticmethod
    def path(kind: str, namespace: str | None, name: str = "") -> str:
        """Path of a collection or an object."""
        plural = PLURALS.get(kind, kind.lower() + "s")
        root = PATHS.get(kind, "/api/v1")
        scope = f"/namespaces/{namespace}" if namespace and kind not in CLUSTER_SCOPED else ""
        return f"{root}{scope}/{plural}" + (f"/{name}" if name else "")

    def create(self, body: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
        """POST, with strict field validation as kubectl asks for."""
        return self.request("POST", self.path(body["kind"], namespace) + "?fieldValidation=Strict", body)

    def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """The object, or None."""
        try:
            return self.request("GET", self.path(kind, namespace, name))
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
        """All objects, optionally by label selector."""
        query = f"?labelSelector={selector}" if selector else ""
        return self.request("GET", self.path(kind, namespace) + query)["items"]

    def merge(self, kind: str, namespace: str | None, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        """JSON merge patch."""
        path = self.path(kind, namespace, name)
        return self.request("PATCH", path, patch, kind="application/merge-patch+json")

    def delete(self, kind: str, namespace: str | None, name: str, **options: Any) -> None:
        """DELETE in the background unless `options` say otherwise; gone already is fine."""
        try:
            self.request("DELETE", self.path(kind, namespace, name), {"propagationPolicy": "Background"} | options)
        except Refused as refused:
            if refused.code != 404:
                raise


_numbers = itertools.count(1)


@contextlib.contextmanager
def new_namespace(kube: Kube, **labels: str) -> Iterator[str]:
    """One with labels, for one test: pods can be made in it, and it goes when the test ends."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    eventually(lambda: kube.get("ServiceAccount", name, "default"), what="default service account")
    yield name
    kube.delete("Namespace", None, name)


def install_crds(kube: Kube) -> Kube:
    """Both kinds, and wait until they are served; returns the client."""
    for crd in all_crds():
        name = crd["metadata"]["name"]
        if kube.get("CustomResourceDefinition", None, name) is None:
            kube.create(crd)

        def served(kind: str = crd["spec"]["names"]["kind"]) -> bool:
            try:
                kube.list(kind)
            except Refused:  # 404 until it is established, 429 while its storage is being made
                return False
            return True

        eventually(served, what=f"CRD {name} served")
    return kube


def eventually(check: Callable[[], Any], *, within: float = 20.0, what: str = "") -> Any:
    """Call until the answer is true; AssertionErrors count as "not yet"."""
    deadline = time.monotonic() + within
    last: Any = None
    while time.monotonic() < deadline:
        try:
            if answer := check():
                return answer
            last = answer
        except AssertionError as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"{what or check}: not within {within} s; last: {last!r}")
