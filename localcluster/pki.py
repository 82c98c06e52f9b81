"""Certificates: one authority a cluster, and a client or server pair for each component."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from localcluster.errors import ClusterError

_DAYS = "3650"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """The cluster's own certificate authority, in a folder that only the owner reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        self.service_account_key = folder / "service-account.key"
        self.service_account_public = folder / "service-account.pub"

    def create(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True)
        _openssl(
            "req",
            "-x509",
            *_NEW_KEY,
            "-keyout",
            self._key,
            "-out",
            self.certificate,
            "-days",
            _DAYS,
            "-subj",
            "/CN=localcluster",
        )
        # RSA, as in nearly every cluster: verifiers of service account tokens meet what they will meet elsewhere.
        _openssl("genrsa", "-out", self.service_account_key, "2048")
        _openssl("rsa", "-in", self.service_account_key, "-pubout", "-out", self.service_account_public)

    def issue(self, name: str, subject: str, hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """A certificate and its key; hosts ("DNS:x", "IP:y") make it fit for a server too."""
        certificate, key = self.pair(name)
        usage = "clientAuth,serverAuth" if hosts else "clientAuth"
        extensions = [f"extendedKeyUsage={usage}", *([f"subjectAltName={','.join(hosts)}"] if hosts else [])]
        _openssl(
            "req",
            "-x509",
            *_NEW_KEY,
            "-CA",
            self.certificate,
            "-CAkey",
            self._key,
            "-keyout",
            key,
            "-out",
            certificate,
            "-days",
            _DAYS,
            "-subj",
            subject,
            *(
                argument
                for extension in ["basicConstraints=CA:FALSE", *extensions]
                for argument in ("-addext", extension)
            ),
        )
        return certificate, key

    def pair(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed:\n{done.stderr.strip()}")
