"""The browser examples of docs/live.md, run as they stand there, with this stack's addresses and a backend that answers."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from tests.browser.conftest import open_idle_page

from holdfast.client import Client
from holdfast.local.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

WAIT_MS = 60_000
TOPIC = "audience:user-42"
BLOCKS = re.findall(r"```js\n(.*?)```", (Path(__file__).parents[2] / "docs" / "live.md").read_text(), re.DOTALL)


def example(holds: str) -> str:
    [found] = [block for block in BLOCKS if holds in block]
    return str(found)


@pytest.fixture
def tab(stack: Stack, open_tab: Callable[..., Any]) -> Any:
    """A page beside the gateway; what it logs is kept in ``said``."""
    tab = open_tab(bypass_csp=True)
    tab.said = []
    tab.page.on("console", lambda message: tab.said.append(message.text))
    open_idle_page(tab.page, stack)
    return tab


def jwt_of(stack: Stack, *, exp: int) -> str:
    claims = {
        "aud": "holdfast-live",
        "sub": "user-42",
        "tenant": "demo",
        "iat": 0,
        "exp": exp,
        "jti": "1",
        "topics": [TOPIC],
    }
    return jwt.encode(claims, stack._secret, "HS256")


def until_said(tab: Any, text: str) -> None:
    while not any(text in said for said in tab.said):
        tab.page.wait_for_event("console", timeout=WAIT_MS)


def test_the_module_s_example_shows_what_there_is_and_every_update(
    stack: Stack, client: Client, tab: Any, send: Callable[[str], str]
) -> None:
    before = send("user-42")
    client.wait(before, timeout_seconds=60)
    tab.page.route("**/my-backend/live-token", lambda route: route.fulfill(body=client.token([TOPIC]).token))
    stored = [{"id": event.event_id, **event.raw} for event in client.events(audience="user-42")]
    tab.page.route("**/my-backend/events", lambda route: route.fulfill(body=json.dumps(stored)))

    tab.page.add_script_tag(
        type="module", content=example("live.follow").replace("ws://127.0.0.1:8090/v1/live", stack.live_url)
    )
    until_said(tab, f"{before} processed")
    after = send("user-42")
    until_said(tab, f"{after} processed")

    assert tab.errors == []


def test_the_event_source_example_survives_an_expired_token_and_a_gateway_that_is_away(
    stack: Stack, client: Client, tab: Any, send: Callable[[str], str]
) -> None:
    expired = jwt_of(stack, exp=1)
    tokens = itertools.chain([expired, expired], itertools.repeat(client.token([TOPIC]).token))
    tab.page.expose_function("getToken", lambda: next(tokens))
    tab.page.add_script_tag(content=example("EventSource"))
    tab.page.evaluate(
        "([topic]) => open(getToken, topic, (frame) => console.log(frame.type, frame.event?.id, frame.event?.state))",
        [TOPIC],
    )
    until_said(tab, "subscribed")
    stack.services["ws-gateway"].kill()
    stack.hold("ws-gateway")
    missed = send("user-42")
    client.wait(missed, timeout_seconds=60)
    until_said(tab, "ERR_CONNECTION_REFUSED")  # it asked for a ticket while the gateway was away
    stack.resume("ws-gateway")

    until_said(tab, f"update {missed} processed")
    assert not any("gap" in said for said in tab.said)
