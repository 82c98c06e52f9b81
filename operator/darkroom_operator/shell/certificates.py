"""The report server's certificate: an authority and a leaf of our own making, kept in one Secret that every replica reads.

The authority lives for ten years, because pods carry its public half in their environment; the leaf is renewed by whichever
replica comes first, without a restart: a TLS context takes a new one for the connections to come.
"""

import asyncio
import base64
import binascii
import ipaddress
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from darkroom_operator.shell.client import SECRETS, ApiError, Client
from darkroom_operator.shell.metrics import Metrics

log = logging.getLogger(__name__)
AUTHORITY_LIFE, LEAF_LIFE = timedelta(days=3650), timedelta(days=90)
AUTHORITY_MARGIN, LEAF_MARGIN = timedelta(days=365), timedelta(days=30)
"""Left of a life when it is renewed."""
SKEW = timedelta(hours=1)
"""A clock that is late must not find a certificate of the future."""
POLL_SECONDS = 60.0


@dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, certificate: bytes, key: bytes) -> Self | None:
        """From PEM; None for anything else, or if the two do not belong together."""
        try:
            read, private = x509.load_pem_x509_certificate(certificate), load_pem_private_key(key, None)
            public = read.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or public != private.public_key():
            return None
        return cls(read, private)

    @property
    def pem(self) -> tuple[bytes, bytes]:
        """Certificate and key."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self.certificate.public_bytes(Encoding.PEM), key

    def lasts(self, moment: datetime) -> bool:
        """Whether it is valid then."""
        return self.certificate.not_valid_after_utc > moment


@dataclass(frozen=True)
class Pair:
    """What the Secret holds."""

    authority: Signed
    leaf: Signed

    @classmethod
    def read(cls, data: Mapping[str, str]) -> tuple[Signed | None, Signed | None]:
        """Authority and leaf from a Secret's data; None for what is missing or no use."""
        try:
            pem = {name: base64.b64decode(text, validate=True) for name, text in data.items()}
        except binascii.Error:
            return None, None
        authority = Signed.read(pem.get("ca.crt", b""), pem.get("ca.key", b""))
        return authority, Signed.read(pem.get("tls.crt", b""), pem.get("tls.key", b""))

    def data(self) -> dict[str, str]:
        """As a Secret's data."""
        names = ("ca.crt", "ca.key", "tls.crt", "tls.key")
        return {
            name: base64.b64encode(pem).decode()
            for name, pem in zip(names, (*self.authority.pem, *self.leaf.pem), strict=True)
        }


def renewed(data: Mapping[str, str], host: str, now: datetime) -> Pair:
    """What the Secret should hold: what it holds, as far as that is good for a while and for this host."""
    authority, leaf = Pair.read(data)
    if authority is None or not authority.lasts(now + AUTHORITY_MARGIN):
        authority = make_authority(now)
    if leaf is None or not leaf.lasts(now + LEAF_MARGIN) or not _fits(leaf, authority, host):
        leaf = make_leaf(authority, host, now)
    return Pair(authority, leaf)


def _fits(leaf: Signed, authority: Signed, host: str) -> bool:
    try:
        leaf.certificate.verify_directly_issued_by(authority.certificate)
        names = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # a signature's failure has its own class in each kind of key
        return False
    return _alternative_name(host) in list(names)


def make_authority(now: datetime) -> Signed:
    """Signs nothing but leaves."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(**dict.fromkeys(_USES, False) | {"key_cert_sign": True, "crl_sign": True})
    name = _name("darkroom reports")
    builder = (
        _builder(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Signed(builder.sign(key, SHA256()), key)


def make_leaf(authority: Signed, host: str, now: datetime) -> Signed:
    """A server's certificate for `host`, which is a DNS name or an IP address."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(**dict.fromkeys(_USES, False) | {"digital_signature": True})
    issuer = authority.certificate
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_name("darkroom reports server"), issuer.subject, key, now, LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host)]), critical=False)
        .add_extension(signer, critical=False)
    )
    return Signed(builder.sign(authority.key, SHA256()), key)


_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


class Certificates:
    """Keeps the Secret filled and a TLS context up to date with it."""

    def __init__(
        self, client: Client, secret: str, host: str, metrics: Metrics, on_authority: Callable[[str], None]
    ) -> None:
        self._client, self._host, self._metrics, self._on_authority = client, host, metrics, on_authority
        self._namespace, _, self._name = secret.partition("/")
        self._complaint = ""
        self._leaf = b""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.loaded = asyncio.Event()
        """Set once the context has a certificate."""

    async def run(self, poll: float = POLL_SECONDS) -> None:
        """Look at the Secret for ever; trouble is told once, and waited out."""
        while True:
            try:
                await self.refresh(self._client.clock.now)
                self._complaint = ""
            except (ApiError, OSError) as error:
                self._complain(error)
            await asyncio.sleep(poll)

    async def refresh(self, now: Callable[[], datetime]) -> None:
        """Renew what is due, and take what is new into use; ApiError if the Secret cannot be read or written."""
        pair = await self._settled(now)
        certificate, key = pair.leaf.pem
        if certificate == self._leaf:
            return
        _load(self.context, certificate, key)
        self._leaf = certificate
        self._metrics.certificate_expiry.set(pair.leaf.certificate.not_valid_after_utc.timestamp())
        self._on_authority(pair.authority.pem[0].decode())
        self.loaded.set()

    async def _settled(self, now: Callable[[], datetime]) -> Pair:
        """What the Secret holds after all replicas have had their say: the first to write wins."""
        while True:
            found = await self._client.get(SECRETS, self._namespace, self._name)
            data = found.get("data") or {}
            pair = renewed(data, self._host, now())  # asked after an answer: it sets the clock
            if pair.data().items() <= data.items():
                return pair
            patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "data": pair.data()}
            try:
                await self._client.merge(SECRETS, self._namespace, self._name, patch)
            except ApiError as error:
                if error.code != 409:
                    raise
                continue
            log.info("made a certificate for %s, good until %s", self._host, pair.leaf.certificate.not_valid_after_utc)
            return pair

    def _complain(self, error: Exception) -> None:
        if str(error) != self._complaint:
            where = f"Secret {self._namespace}/{self._name}"
            log.warning("no certificate for live reports, which training does without: %s: %s", where, error)
        self._complaint = str(error)


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Python reads certificates from files only; these are gone before anybody else could look."""
    with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
        file = Path(folder) / "pair.pem"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(certificate + key)
        context.load_cert_chain(file)
