"""Everything that one service writes and another reads, as versioned models.

``python -m holdfast.messaging.contracts`` writes their JSON Schemas to ``contracts/``; ``contracts/golden/`` holds one
example of each, written by hand. Contract tests hold every producer and every consumer against both.

Compatibility: a consumer ignores fields that it does not know, so a release may add optional fields; renaming or
removing one needs a new version beside the old one.
"""

import json
import sys
from datetime import datetime
from json.encoder import encode_basestring
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from holdfast.domain.names import MAX_NAME_BYTES, check_name
from holdfast.domain.state import State
from holdfast.domain.update import Update

__all__ = [
    "CONTRACTS",
    "LIVE_AUDIENCE",
    "MAX_TOKEN_BYTES",
    "DoorbellV1",
    "LiveTokenV1",
    "Name",
    "UpdateV1",
    "encode_update",
    "schemas",
    "Contract",
]

FOLDER = Path(__file__).with_name("contracts")

LIVE_AUDIENCE = "holdfast-live"
"""In the ``aud`` claim: a token for anything else does not open the gateway."""

MAX_TOKEN_BYTES = 6 * 1024
"""Longest live token that is minted. It fits into a ``hello`` frame, which has 8 KiB, with room for topics and positions, and
into a header line of 8 KiB, which is what common proxies take. Enough for 64 events, or for 64 names of 50 characters."""

LATEST_SECOND = 10**11
"""Later times (after the year 5000) are milliseconds."""


class Contract(BaseModel):
    """A message on the wire. Consumers ignore unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DoorbellV1(Contract):
    """A hint that an event may be due: the arguments of the one Dramatiq actor. Losing or doubling it does no harm."""

    event_id: UUID
    version: int = Field(ge=1)
    """The event's version when the bell was rung; at any other version the doorbell is stale."""


class UpdateV1(Contract):
    """One event's full state, as published and as the ``event`` of an ``update`` frame.

    Clients keep the highest ``(version, step)`` of an event and drop the rest.
    """

    id: UUID
    type: str
    state: State
    version: int = Field(ge=1)
    step: int = Field(default=0, ge=0)
    """0 for a transition; progress within an attempt counts 1, 2, … at an unchanged version."""
    attempt: int = Field(ge=0)
    at: AwareDatetime
    detail: dict[str, Any] = Field(default_factory=dict)
    """``result``, ``error`` (type; message or null), ``progress`` (fraction, message), ``retry_in_seconds``, ``reason``; and
    ``truncated``, the names of those that were left out because the update would have been too long."""


def _numeric_date(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= LATEST_SECOND:  # type: ignore[operator]  # NaN is refused by the comparison
        raise ValueError("takes seconds since 1970 as a number (RFC 7519), no text and no milliseconds")
    return value


def _for_live(value: str | list[str]) -> str | list[str]:
    if LIVE_AUDIENCE not in ([value] if isinstance(value, str) else value):
        raise ValueError(f"has to be {LIVE_AUDIENCE}, or a list with it")
    return value


NumericDate = Annotated[
    int | float,
    BeforeValidator(_numeric_date),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": LATEST_SECOND}),
]
"""RFC 7519, section 2: seconds since 1970, with a fraction or without."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_BYTES), AfterValidator(check_name)]
"""See ``domain.names``, which counts bytes."""

Audience = Annotated[
    str | list[str],
    AfterValidator(_for_live),
    WithJsonSchema({"anyOf": [{"const": LIVE_AUDIENCE}, {"type": "array", "contains": {"const": LIVE_AUDIENCE}}]}),
]


class LiveTokenV1(Contract):
    """Claims of a live token (JWT, RFC 7519): who may see which topics, and until when."""

    aud: Audience
    """For whom the token is: one name, or a list of names."""
    sub: Name
    tenant: str = Field(min_length=1)
    iat: NumericDate
    """When it was issued, which a revocation of its subject goes by. One of the future is no reason to refuse a token."""
    nbf: NumericDate | None = None
    """From when on it counts."""
    exp: NumericDate
    jti: Name
    topics: list[str] = Field(min_length=1)
    """Topics, or the start of topics with a final ``*``."""


CONTRACTS: dict[str, type[Contract]] = {
    "doorbell.v1": DoorbellV1,
    "update.v1": UpdateV1,
    "live-token.v1": LiveTokenV1,
}


_encode_detail = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def encode_update(update: Update) -> str:
    """The body that travels and that every client receives: compact JSON of :class:`UpdateV1`."""
    detail = _encode_detail(dict(update.detail)) if update.detail else "{}"
    # Written out: the general encoder takes five times as long for the one text in it that needs escapes.
    return (
        f'{{"id":"{update.event_id}","type":{encode_basestring(update.type)},"state":"{update.state}",'
        f'"version":{update.version},"step":{update.step},"attempt":{update.attempt},"at":"{_rfc3339(update.at)}",'
        f'"detail":{detail}}}'
    )


def schemas() -> dict[str, str]:
    """File name → JSON Schema text of every contract."""
    return {
        f"{name}.schema.json": json.dumps(model.model_json_schema(mode="validation"), indent=2, sort_keys=True) + "\n"
        for name, model in CONTRACTS.items()
    }


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


if __name__ == "__main__":
    for file_name, schema in schemas().items():
        (FOLDER / file_name).write_text(schema)
        sys.stdout.write(f"{file_name}\n")
