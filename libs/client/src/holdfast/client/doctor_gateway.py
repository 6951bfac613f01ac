"""Whether live updates can be had: the gateway's address, its secret, and its Redis."""

import asyncio
import base64
import json
from collections.abc import Iterator
from uuid import UUID

from holdfast.client.checkup import Finding, ok, unchecked, warning, wrong
from holdfast.client.connection import Address
from holdfast.client.errors import ApiProblem, ClientError, LiveClosed, Unreachable
from holdfast.client.http import Client
from holdfast.client.link import Link, Lost

__all__ = ["check_gateway"]

TOPIC = f"event:{UUID(int=0)}"
"""No event has this id, so nothing is ever told of it."""

WAIT_SECONDS = 10.0

BAD_TOKEN, REVOKED = 4501, 4506
"""Close codes; docs/asyncapi.yaml has all of them."""

UNAVAILABLE = ("(4008)", "HTTP 503")
"""How a gateway without its Redis ends a connection or refuses one."""


def check_gateway(address: Address, *, is_probing: bool) -> Iterator[Finding]:
    """Connect with a token, and with ``is_probing`` revoke that and see the connection end."""
    with Client(address.url or "", address.api_key or "") as client:
        try:
            token = client.token([TOPIC], sub="holdfast-doctor", ttl_seconds=60)
        except ApiProblem as exc:
            yield unchecked("gateway", f"no live token to be had: {exc.code}", "use a key with the scope events:read")
            return
        live_url = address.live_url or token.live_url
        if live_url is None:
            yield unchecked(
                "gateway", "its address is unknown",
                "give --live-url (HOLDFAST_LIVE_URL), and tell clients with HOLDFAST_PUBLIC_LIVE_URL at ingest",
            )  # fmt: skip
            return
        yield from asyncio.run(_connect(client, live_url, token.token, is_probing=is_probing))


async def _connect(client: Client, live_url: str, token: str, *, is_probing: bool) -> list[Finding]:
    hello = json.dumps({"type": "hello", "v": 1, "token": token, "attempt": 1, "topics": [TOPIC], "positions": {}})
    try:
        async with asyncio.timeout(WAIT_SECONDS), await Link.open(live_url, [hello]) as link:
            while (await link.next())["type"] != "welcome":
                pass
            found = [ok("gateway", f"{live_url} answers and takes ingest's tokens")]
            return [*found, await _probe(client, link, token) if is_probing else _not_probed()]
    except LiveClosed as exc:
        return [_closed(live_url, exc)]
    except TimeoutError:
        reason = f"no answer from {live_url} within {WAIT_SECONDS:g} s"
        return [wrong("gateway", reason, "see that no proxy between holds WebSockets up")]
    except (Lost, Unreachable) as exc:
        return [_unreachable(live_url, exc)]


def _closed(live_url: str, exc: LiveClosed) -> Finding:
    if exc.code == BAD_TOKEN:
        return wrong(
            "gateway", f"{live_url} refuses ingest's tokens: {exc.reason}",
            "give ingest and gateway the same HOLDFAST_LIVE_TOKEN_SECRET",
        )  # fmt: skip
    return wrong("gateway", f"{live_url} ends the connection: {exc.reason} ({exc.code})", "docs/live.md has the codes")


def _unreachable(live_url: str, exc: Exception) -> Finding:
    if any(each in str(exc) for each in UNAVAILABLE):
        return wrong(
            "gateway", f"{live_url} answers, and cannot serve now: {exc}",
            "see that the gateway's HOLDFAST_REDIS_URL runs and is the one that ingest and maintenance have: they copy the"
            " revoked tokens into it, without which nobody is let in",
        )  # fmt: skip
    return wrong(
        "gateway", str(exc),
        "see that ws-gateway runs and that HOLDFAST_PUBLIC_LIVE_URL (or --live-url) is its address, ws://…/v1/live;"
        " a proxy has to pass WebSockets on",
    )  # fmt: skip


def _not_probed() -> Finding:
    return unchecked(
        "live window", "whether ingest and gateway have the same Redis",
        "add --probe (scope operate): it revokes a token of its own and sees whether the gateway hears of it",
    )  # fmt: skip


async def _probe(client: Client, link: Link, token: str) -> Finding:
    try:
        is_immediate = await asyncio.to_thread(client.revoke_tokens, jti=_jti(token))
    except ClientError as exc:
        return unchecked("live window", f"the token could not be revoked: {exc}", "use a key with the scope operate")
    if not is_immediate:
        return warning("live window", "ingest cannot reach its Redis", "see the findings above")
    try:
        async with asyncio.timeout(WAIT_SECONDS / 2):
            while True:
                await link.next()
    except LiveClosed as exc:
        if exc.code == REVOKED:
            return ok("live window", "the gateway hears what ingest tells it")
    except (Lost, TimeoutError):
        pass
    return wrong(
        "live window", "the gateway did not hear of a token that ingest revoked",
        "give ingest, processor, maintenance and gateway the same HOLDFAST_REDIS_URL, server and database number alike",
    )  # fmt: skip


def _jti(token: str) -> str:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return str(claims["jti"])
