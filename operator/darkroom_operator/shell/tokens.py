"""Whose token is it: checked with the keys that the cluster publishes, so no right is needed, in either install mode.

A token counts if the cluster's issuer signed it, for our audience, not long ago, for a pod. Whether that pod still exists,
and what it belongs to, is the caller's to ask: a deleted pod's token is good until it expires.
"""

import time
from collections.abc import Mapping
from typing import Any

import jwt
from jwt.types import Options
from pydantic import BaseModel, FiniteFloat, ValidationError

from darkroom_api import names
from darkroom_operator.shell.client import ApiError, Client

KEYS_PATH = "/openid/v1/jwks"
ISSUER_PATH = "/.well-known/openid-configuration"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key; a token that claims anything else is refused whatever the keys are."""
LEEWAY_SECONDS = 60.0
"""By which clocks may differ, as the API server itself has it."""
KEPT_SECONDS = 600.0
RETRY_SECONDS = 10.0
"""Between two looks for a key that is not there: tokens with invented keys must not become requests to the API server."""


_OPTIONS: Options = {
    "require": ["exp", "iat", "iss", "aud"],
    "verify_exp": False,  # by PyJWT, which would compare with this machine's clock: check_times does it
    "verify_iat": False,
    "verify_nbf": False,
}


class BadTokenError(Exception):
    """The token proves nothing; the message says why, and is for the caller."""


class _Reference(BaseModel):
    name: str
    uid: str


class Holder(BaseModel):
    """The pod that a token was issued for."""

    namespace: str
    pod: _Reference


class _Times(BaseModel):
    exp: FiniteFloat
    iat: FiniteFloat
    nbf: FiniteFloat = 0.0


def check_times(claims: Mapping[str, Any], now: float) -> None:
    """As RFC 7519 sections 4.1.4 to 4.1.6 have it; `now` is Unix time. BadTokenError if it is not the token's time."""
    try:
        times = _Times.model_validate(claims)
    except ValidationError as error:
        raise BadTokenError("the token's times are no numbers") from error
    if now >= times.exp + LEEWAY_SECONDS:
        raise BadTokenError("the token has expired")
    if now + LEEWAY_SECONDS < max(times.iat, times.nbf):
        raise BadTokenError("the token is not yet valid")


class Tokens:
    """Checks tokens of training pods."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._keys: dict[str, jwt.PyJWK] = {}
        self._issuer = ""
        self._asked_at = float("-inf")

    async def holder(self, token: str) -> Holder:
        """Raises BadTokenError, or ApiError while the cluster's keys cannot be read."""
        try:
            key = await self._key(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=names.REPORT_AUDIENCE,
                issuer=self._issuer,
                options=_OPTIONS,
            )
            check_times(claims, self._client.clock.now().timestamp())
            return Holder.model_validate(claims.get("kubernetes.io"))
        except jwt.InvalidTokenError as error:
            raise BadTokenError(str(error)) from error
        except ValidationError as error:
            raise BadTokenError("the token is not bound to a pod") from error

    async def _key(self, header: dict[str, Any]) -> jwt.PyJWK:
        name, now = str(header.get("kid")), time.monotonic()
        if now - self._asked_at > (KEPT_SECONDS if name in self._keys else RETRY_SECONDS):
            self._asked_at = now
            try:
                await self._read()
            except ApiError:
                if name not in self._keys:  # those that were good ten minutes ago will do until the API server is back
                    raise
        if not self._keys:
            raise ApiError(0, "Unknown", "they could not be read a moment ago")
        if name not in self._keys:
            raise BadTokenError("the token is signed with a key that the cluster does not publish")
        return self._keys[name]

    async def _read(self) -> None:
        found, published = [await self._client.document(path) for path in (ISSUER_PATH, KEYS_PATH)]
        try:
            keys = jwt.PyJWKSet.from_dict(published).keys
            self._issuer, self._keys = str(found["issuer"]), {str(key.key_id): key for key in keys if key.key_id}
        except (jwt.PyJWTError, KeyError) as error:
            raise ApiError(0, "Unusable", f"{KEYS_PATH}: {error}") from error
