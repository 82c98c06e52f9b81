"""Whose token is it: checked with the keys that the cluster publishes, so no right is needed, in either install mode.

A token counts if the cluster's issuer signed it, for our audience, not long ago, for a pod. Whether that pod still exists,
and what it belongs to, is the caller's to ask: a deleted pod's token is good until it expires.
"""

import time
from typing import Any

import jwt
from pydantic import BaseModel, ValidationError

from darkroom_api import names
from darkroom_operator.shell.client import Client

KEYS_PATH = "/openid/v1/jwks"
ISSUER_PATH = "/.well-known/openid-configuration"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key; a token that claims anything else is refused whatever the keys are."""
KEPT_SECONDS = 600.0
RETRY_SECONDS = 10.0
"""Between two looks for a key that is not there: tokens with invented keys must not become requests to the API server."""


class BadTokenError(Exception):
    """The token proves nothing; the message says why, and is for the caller."""


class _Reference(BaseModel):
    name: str
    uid: str


class Holder(BaseModel):
    """The pod that a token was issued for."""

    namespace: str
    pod: _Reference


class Tokens:
    """Checks tokens of training pods."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._keys: dict[str, jwt.PyJWK] = {}
        self._issuer = ""
        self._read_at = float("-inf")

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
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
            return Holder.model_validate(claims.get("kubernetes.io"))
        except jwt.InvalidTokenError as error:
            raise BadTokenError(str(error)) from error
        except ValidationError as error:
            raise BadTokenError("the token is not bound to a pod") from error

    async def _key(self, header: dict[str, Any]) -> jwt.PyJWK:
        name, age = str(header.get("kid")), time.monotonic() - self._read_at
        if age > KEPT_SECONDS or (name not in self._keys and age > RETRY_SECONDS):
            await self._read()
        if name not in self._keys:
            raise BadTokenError("the token is signed with a key that the cluster does not publish")
        return self._keys[name]

    async def _read(self) -> None:
        found = await self._client.document(ISSUER_PATH)
        published = await self._client.document(KEYS_PATH)
        keys = jwt.PyJWKSet.from_dict(published).keys
        self._issuer, self._read_at = found["issuer"], time.monotonic()
        self._keys = {str(key.key_id): key for key in keys if key.key_id}
