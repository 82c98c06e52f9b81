"""Where the API server is and who we are to it: from inside a pod, or from a kubeconfig."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from darkroom_api import names

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Endpoint:
    """An API server and our credentials. The token is asked for at every request, so rotation is a non-event."""

    server: str
    tls: ssl.SSLContext | None
    token: Callable[[], str | None]

    def session(
        self, *middlewares: aiohttp.ClientMiddlewareType, connections: int = 50, **options: Any
    ) -> aiohttp.ClientSession:
        """A new session; every request carries the present token. 0 connections: as many as are asked for."""

        async def authenticate(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            if token := self.token():
                request.headers["Authorization"] = f"Bearer {token}"
            return await handler(request)

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=self.tls if self.tls is not None else True),
            middlewares=(*middlewares, authenticate),
            headers={"User-Agent": names.FIELD_MANAGER},
            trust_env=True,
            **options,
        )


def find_endpoint() -> Endpoint:
    """In a pod: its service account. Elsewhere: $KUBECONFIG or ~/.kube/config, current context."""
    if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
        return _from_pod()
    return _from_kubeconfig()


def _from_pod() -> Endpoint:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    if ":" in host:
        host = f"[{host}]"
    tls = _tls(str(SERVICE_ACCOUNT / "ca.crt"))
    return Endpoint(f"https://{host}:{port}", tls, (SERVICE_ACCOUNT / "token").read_text)


def _tls(authority: str | None) -> ssl.SSLContext:
    """As strict as Kubernetes' own clients: Python 3.13 began to refuse authorities without key usage, which clusters have."""
    tls = ssl.create_default_context(cafile=authority)
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return tls


def _from_kubeconfig() -> Endpoint:
    """By the kubernetes package, which knows exec plugins and every way to embed a certificate."""
    from kubernetes import client, config

    found = client.Configuration()
    config.load_kube_config(client_configuration=found)  # type: ignore[no-untyped-call]
    tls = None
    if found.host.startswith("https"):
        tls = _tls(found.ssl_ca_cert or None)
        if not found.verify_ssl:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if found.cert_file:
            tls.load_cert_chain(found.cert_file, found.key_file)

    def token() -> str | None:
        text = found.get_api_key_with_prefix("authorization") or found.get_api_key_with_prefix("BearerToken")
        return text.removeprefix("Bearer ") if text else None

    return Endpoint(found.host, tls, token)
