"""What a client can see of a deployment: over HTTP, and through the gateway."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from holdfast.client.checkup import Finding, clock_finding, ok, unchecked, warning, wrong
from holdfast.client.connection import Address
from holdfast.client.errors import Unreachable
from holdfast.client.http import Client

__all__ = ["check_api"]

TIMEOUT_SECONDS = 5.0

SCOPES = ("events:read", "events:write", "operate")

OVERDUE_SECONDS = 60.0
"""A queued event that has been due for longer was left alone: processors look for due events every second or two."""

LOOKED_AT = 200
"""Queued events that are looked at, the newest: a page of the API."""

DEPENDENCIES = {
    "SchemaOutdated": "run 'holdfast migrate' with this release against ingest's HOLDFAST_DATABASE_URL",
    "DatabaseUnsuitable": "'holdfast doctor --settings ingest' says whether its encoding or its age is wrong",
    "DatabaseUnavailable": "see that PostgreSQL runs, takes writes, and is the one in ingest's HOLDFAST_DATABASE_URL",
    "BrokerUnavailable": "see that the Redis in ingest's HOLDFAST_BROKER_URL runs and is no read-only replica",
    "LiveWindowUnavailable": "see that the Redis in ingest's HOLDFAST_REDIS_URL runs and is no read-only replica",
}
"""What to do about an error that ``/readyz`` names."""


def check_api(address: Address, needed_scopes: list[str]) -> Iterator[Finding]:
    """Findings in the order in which they matter; ends early where nothing more can be asked."""
    if address.url is None:
        yield wrong("api", "no address is given", "give --url (HOLDFAST_URL), or start a local stack with 'make up'")
        return
    try:
        with Client(address.url, address.api_key or "none"), _http(address) as http:
            yield from _check(http, address, needed_scopes)
    except Unreachable as exc:
        yield wrong("api", str(exc), "check --url (HOLDFAST_URL) and --api-key (HOLDFAST_API_KEY)")


def _http(address: Address) -> httpx.Client:
    # Not the client's own requests: those wait and try again, and here the first answer is what is asked for.
    key = (address.api_key or "").strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=(address.url or "").rstrip("/"), timeout=TIMEOUT_SECONDS, headers=headers)


def _check(http: httpx.Client, address: Address, needed_scopes: list[str]) -> Iterator[Finding]:
    try:
        began = time.time()
        answer = http.get("/readyz")
        middle = (began + time.time()) / 2
    except httpx.RequestError as exc:
        yield wrong(
            "api", f"nothing answers at {address.url} ({type(exc).__name__})",
            "see that ingest runs, that HOLDFAST_INGEST_HOST lets this machine in, and that host, port and http or https"
            " of --url (HOLDFAST_URL) are right",
        )  # fmt: skip
        return
    health = _json(answer)
    if not isinstance(health.get("checks"), dict) or "database" not in health["checks"]:
        yield wrong(
            "api", f"what answers at {address.url} is not Holdfast's ingest (HTTP {answer.status_code} at /readyz)",
            "check --url (HOLDFAST_URL): the port may be another service's, and a proxy has to pass all paths on",
        )  # fmt: skip
        return
    yield ok("api", f"ingest answers at {address.url}")
    yield from _dependencies(health["checks"])
    yield _clock(answer, middle)
    if address.api_key is None:
        yield wrong("key", "no API key is given", "give --api-key (HOLDFAST_API_KEY); 'holdfast keys create' makes one")
        return
    yield from _key(http, needed_scopes)


def _dependencies(checks: dict[str, str]) -> Iterator[Finding]:
    names = {"database": "database", "live": "live window", "broker": "broker"}
    for name, state in checks.items():
        called = names.get(name, name)
        if state == "ok":
            yield ok(called, "ingest says it is well")
            continue
        remedy = DEPENDENCIES.get(state, f"see ingest's log; its /readyz says {state}")
        if state == "TimeoutError":
            remedy = "see that it is not overloaded, locked or behind a firewall that drops packets"
        yield wrong(called, f"ingest says it is not well: {state}", remedy)


def _clock(answer: httpx.Response, middle: float) -> Finding:
    try:
        server = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return unchecked("clock", "the answer has no Date", "compare the clocks by hand: date -u")
    return clock_finding("ingest", server - middle)


def _key(http: httpx.Client, needed_scopes: list[str]) -> Iterator[Finding]:
    answers = {
        "events:read": http.get("/v1/events", params={"limit": "1"}),
        # Refused with 400 for its missing attributes if the key may send events, and with 403 before that if it may not.
        "events:write": http.post(
            "/v1/events", content=b"{}", headers={"Content-Type": "application/cloudevents+json"}
        ),
        "operate": http.get("/v1/replays", params={"limit": "1"}),
    }
    first = answers["events:read"]
    if first.status_code == httpx.codes.UNAUTHORIZED:
        is_expired = _json(first).get("code") == "key_expired"
        yield wrong(
            "key", "it has expired" if is_expired else "it is unknown here, revoked, or not copied whole",
            "create another with 'holdfast keys create' on the database of this deployment",
        )  # fmt: skip
        return
    if first.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        yield unchecked("key", f"ingest answers with HTTP {first.status_code}", "mend the findings above first")
        return
    if not first.is_success and first.status_code != httpx.codes.FORBIDDEN:
        yield wrong(
            "api", f"what answers there has no /v1/events (HTTP {first.status_code})",
            "check --url (HOLDFAST_URL): it is the address of ingest, not of a service's metrics",
        )  # fmt: skip
        return
    yield ok("key", "it counts here")
    yield from _scopes({name: answer.status_code for name, answer in answers.items()}, needed_scopes)
    if first.is_success:
        yield from _waiting(http)


def _scopes(statuses: dict[str, int], needed: list[str]) -> Iterator[Finding]:
    has = [name for name, status in statuses.items() if status != httpx.codes.FORBIDDEN]
    lacks = [name for name in needed if name not in has]
    told = ", ".join(has) or "none"
    if lacks:
        yield wrong(
            "scopes", f"the key has {told}; it lacks {', '.join(lacks)}",
            "create one with 'holdfast keys create' and " + " ".join(f"--scope {each}" for each in [*has, *lacks]),
        )  # fmt: skip
    else:
        others = [name for name in SCOPES if name not in has]
        yield ok("scopes", f"the key has {told}" + (f", and not {', '.join(others)}" if others else ""))


def _waiting(http: httpx.Client) -> Iterator[Finding]:
    answer = http.get("/v1/events", params={"state": "queued", "limit": str(LOOKED_AT)})
    if not answer.is_success:
        yield unchecked(
            "processors", f"the list answers with HTTP {answer.status_code}", "mend the findings above first"
        )
        return
    items = _json(answer).get("items", [])
    now = datetime.now(UTC)
    overdue = Counter(
        item["event"]["type"]
        for item in items
        if (now - datetime.fromisoformat(item["received_at"])).total_seconds() > OVERDUE_SECONDS
    )
    if not overdue:
        yield ok("processors", f"none of the newest {LOOKED_AT} queued events of this tenant waits for over a minute")
        return
    types = ", ".join(name for name, _ in overdue.most_common(3))
    yield warning(
        "processors", f"{overdue.total()} queued events wait for over a minute, of type {types}",
        "see that a processor runs and that its HOLDFAST_HANDLERS serve the type: 'holdfast doctor --settings processor'"
        " on its machine, 'holdfast handlers check'; events of one subject may also wait for their turn",
    )  # fmt: skip


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
