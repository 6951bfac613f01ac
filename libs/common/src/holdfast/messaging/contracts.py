"""Everything that one service writes and another reads, as versioned models.

``python -m holdfast.messaging.contracts`` writes their JSON Schemas to ``contracts/``; ``contracts/golden/`` holds one
example of each, written by hand. Contract tests hold every producer and every consumer against both.

Compatibility: a consumer ignores fields that it does not know, so a release may add optional fields; renaming or
removing one needs a new version beside the old one.
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from holdfast.domain.state import State
from holdfast.domain.update import Update

__all__ = ["LIVE_AUDIENCE", "CONTRACTS", "DoorbellV1", "LiveTokenV1", "UpdateV1", "encode_update", "schemas"]

FOLDER = Path(__file__).with_name("contracts")

LIVE_AUDIENCE = "holdfast-live"
"""The ``aud`` claim: a token for anything else does not open the gateway."""


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


class LiveTokenV1(Contract):
    """Claims of a live token (JWT, HS256): who may see which topics, and until when."""

    aud: Literal["holdfast-live"] = "holdfast-live"
    sub: str = Field(min_length=1, max_length=200)
    tenant: str = Field(min_length=1)
    iat: int
    exp: int
    jti: str = Field(min_length=1)
    topics: list[str] = Field(min_length=1)
    """Topics, or the start of topics with a final ``*``."""


CONTRACTS: dict[str, type[Contract]] = {
    "doorbell.v1": DoorbellV1,
    "update.v1": UpdateV1,
    "live-token.v1": LiveTokenV1,
}


def encode_update(update: Update) -> str:
    """The body that travels and that every client receives: compact JSON of :class:`UpdateV1`."""
    return json.dumps(
        {
            "id": str(update.event_id),
            "type": update.type,
            "state": update.state,
            "version": update.version,
            "step": update.step,
            "attempt": update.attempt,
            "at": _rfc3339(update.at),
            "detail": dict(update.detail),
        },
        separators=(",", ":"),
        ensure_ascii=False,
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
