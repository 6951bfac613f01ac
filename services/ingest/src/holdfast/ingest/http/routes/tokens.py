"""``/v1/tokens``: live tokens, with which a browser may watch topics, and their revocation."""

import time
from typing import Annotated, Any, Self
from uuid import uuid4

import jwt
from flask import Blueprint, Response, json
from pydantic import BaseModel, ConfigDict, Field, model_validator

from holdfast.domain.errors import InvalidTopic
from holdfast.domain.revocation import RevocationKind
from holdfast.domain.topics import check_grant
from holdfast.ingest.http.acting import acting
from holdfast.ingest.http.auth import require
from holdfast.ingest.http.bodies import read_body
from holdfast.ingest.http.parts import parts
from holdfast.ingest.http.problems import Problem
from holdfast.messaging.contracts import LIVE_AUDIENCE, MAX_TOKEN_BYTES, LiveTokenV1, Name
from holdfast.runtime.settings import IngestSettings

__all__ = ["blueprint", "RevocationRequest", "TokenRequest", "issue"]

blueprint = Blueprint("tokens", __name__)

DEFAULT_SECONDS = 900
MAX_GRANTS = 64


class TokenRequest(BaseModel):
    """Body of ``POST /v1/tokens``."""

    model_config = ConfigDict(extra="forbid")

    topics: Annotated[list[str], Field(min_length=1, max_length=MAX_GRANTS)]
    sub: Name | None = None
    ttl_seconds: Annotated[int, Field(ge=10)] = DEFAULT_SECONDS


class RevocationRequest(BaseModel):
    """Body of ``POST /v1/tokens/revoke``: one token, or all that a subject has by now."""

    model_config = ConfigDict(extra="forbid")

    jti: Name | None = None
    sub: Name | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.jti is None) == (self.sub is None):
            raise ValueError("takes jti or sub, and not both")
        return self


@blueprint.post("/v1/tokens")
def mint() -> Response:
    """Issue a token for the given topics of the key's tenant."""
    holder = require("events:read")
    settings: IngestSettings = parts().settings
    issued = issue(holder.tenant, _wanted(settings), settings, subject=f"key:{holder.key_id}")
    return Response(json.dumps(issued), 201, content_type="application/json")


def issue(tenant: str, wanted: TokenRequest, settings: IngestSettings, *, subject: str) -> dict[str, Any]:
    """A new token for topics of a tenant, with ``expires_at`` (seconds since 1970), ``topics``, ``live_url``.

    ``subject`` is whose it is unless another is wanted.

    Raises:
        Problem: 400, 403 or 422 for topics that it cannot grant.
    """
    now = int(time.time())
    claims = LiveTokenV1(
        aud=LIVE_AUDIENCE,
        sub=wanted.sub or subject,
        tenant=tenant,
        iat=now,
        exp=now + wanted.ttl_seconds,
        jti=uuid4().hex,
        topics=_grants(wanted.topics, tenant),
    )
    token = _signed(claims.model_dump(exclude_none=True), settings.live_token_secret.get_secret_value())
    return {"token": token, "expires_at": claims.exp, "topics": claims.topics, "live_url": settings.public_live_url}


@blueprint.post("/v1/tokens/revoke")
def revoke() -> Response:
    """Revoke one token, or all that a subject of the key's tenant has by now. Doing so again is safe."""
    actor = acting("operate")
    wanted = read_body(RevocationRequest, '{"sub": "user-42"}, or {"jti": "…"} with the jti claim of one token')
    kind = RevocationKind.SUBJECT if wanted.jti is None else RevocationKind.TOKEN
    revocation, is_immediate = parts().revoker.revoke(actor, kind, wanted.jti or wanted.sub or "")
    body = wanted.model_dump(exclude_none=True) | {"revoked_at": revocation.second, "immediate": is_immediate}
    return Response(json.dumps(body), 200, content_type="application/json")


def _signed(claims: dict[str, Any], secret: str) -> str:
    token = jwt.encode(claims, secret, algorithm="HS256")
    if len(token) > MAX_TOKEN_BYTES:
        raise Problem(
            422, "token_too_long",
            f"a live token has at most {MAX_TOKEN_BYTES} bytes and this one would have {len(token)}: grant fewer topics, or"
            " the start of several with a final '*'",
        )  # fmt: skip
    return token


def _wanted(settings: IngestSettings) -> TokenRequest:
    wanted = read_body(TokenRequest, '{"topics": ["event:*"], "sub": "user-42", "ttl_seconds": 900}')
    if wanted.ttl_seconds > settings.live_token_max_seconds:
        detail = f"a live token lives at most {settings.live_token_max_seconds} s; ask for another one in time"
        raise Problem(400, "ttl_too_long", detail)
    return wanted


def _grants(topics: list[str], tenant: str) -> list[str]:
    """The grants in the spelling that the gateway compares: a UUID in capitals is the same event."""
    granted = []
    for topic in topics:
        try:
            grant = check_grant(topic)
        except InvalidTopic as exc:
            raise Problem(400, "invalid_topic", str(exc)) from exc
        if grant.startswith("tenant:") and grant != f"tenant:{tenant}":
            raise Problem(403, "forbidden", f"this key belongs to the tenant {tenant} and grants its topics only")
        granted.append(grant)
    return granted
