"""The demo page in front of the whole stack, in two tabs for two people."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.chaos.proxy import Proxy

from holdfast.client import Client
from holdfast.gateway.demo import DEMO_PATH
from holdfast.local.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

WAIT_MS = 60_000

Send = Callable[[str], str]
OpenTab = Callable[[], Any]


class Person:
    """Somebody with a tab that shows what is addressed to them."""

    def __init__(self, tab: Any, client: Client) -> None:
        self.tab = tab
        self.name = f"user-{uuid4().hex}"
        self.sent: list[str] = []
        self._token = client.token([f"audience:{self.name}"]).token

    def look(self, url: str) -> None:
        """Open the page and connect it, as somebody would."""
        page = self.tab.page
        page.goto(url)
        page.get_by_label("Live token").fill(self._token)
        assert page.get_by_label("Topics").input_value() == f"audience:{self.name}"
        page.get_by_role("button", name="Connect", exact=True).click()
        page.locator("#log").get_by_text("is live").wait_for(timeout=WAIT_MS)

    def await_state(self, state: str) -> None:
        self.tab.page.locator(f'#status[data-state="{state}"]').wait_for(timeout=WAIT_MS)

    def await_processed(self) -> None:
        for event_id in self.sent:
            self.tab.page.locator(f'tr[data-event="{event_id}"][data-state="processed"]').wait_for(timeout=WAIT_MS)

    def has_missed_nothing(self) -> None:
        """Own events and no others, all to their end, and no gap on the way."""
        self.await_processed()
        shown = self.tab.page.locator("#events tr").evaluate_all("rows => rows.map(row => row.dataset.event)")
        assert set(shown) == set(self.sent)
        said = self.tab.page.locator("#log").inner_text()
        assert "nothing was missed" in said
        assert "gap" not in said
        # The browser itself notes each attempt while nobody answers; nothing else may be wrong.
        assert [text for text in self.tab.errors if "WebSocket connection to" not in text] == []


@pytest.fixture
def people(open_tab: OpenTab, client: Client) -> list[Person]:
    return [Person(open_tab(), client) for _ in range(2)]


def send_and_wait(people: list[Person], send: Send, client: Client) -> None:
    for person in people:
        person.sent += [send(person.name) for _ in range(3)]
    for person in people:
        client.wait(person.sent[-1], timeout_seconds=60)


def test_two_tabs_see_their_own_events_and_miss_nothing_while_the_gateway_is_killed(
    stack: Stack, client: Client, people: list[Person], send: Send, tmp_path: Path
) -> None:
    for person in people:
        person.look(stack.demo_url)
    send_and_wait(people, send, client)
    for person in people:
        person.await_processed()
        assert person.tab.errors == []

    stack.services["ws-gateway"].kill()
    stack.hold("ws-gateway")
    for person in people:
        person.await_state("disconnected")
    send_and_wait(people, send, client)
    stack.resume("ws-gateway")

    for person in people:
        person.has_missed_nothing()
    people[0].tab.page.screenshot(path=str(tmp_path / "demo.png"))


def test_two_tabs_miss_nothing_while_the_network_is_gone(
    stack: Stack, client: Client, people: list[Person], send: Send
) -> None:
    gateway_port = int(stack.demo_url.partition("127.0.0.1:")[2].partition("/")[0])
    with Proxy(gateway_port) as network:
        for person in people:
            person.look(stack.demo_url.replace(f":{gateway_port}", f":{network.port}"))
        send_and_wait(people, send, client)

        network.refuse()
        network.close_connections()
        for person in people:
            person.await_state("disconnected")
        send_and_wait(people, send, client)
        network.accept()

        for person in people:
            person.has_missed_nothing()


def test_the_page_runs_nothing_that_is_written_into_it(stack: Stack, open_tab: OpenTab) -> None:
    tab = open_tab()
    answer = tab.page.goto(stack.demo_url)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert tab.errors == []
    assert tab.page.evaluate("getComputedStyle(document.querySelector('form')).display") == "flex", (
        "its style is let in"
    )
    tab.page.evaluate("document.body.append(Object.assign(document.createElement('p'), {textContent: 'unharmed'}))")
    with pytest.raises(Exception, match=r"TrustedHTML|TrustedScript"):
        tab.page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    assert DEMO_PATH in tab.page.url
