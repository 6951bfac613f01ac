"""The demo page in front of the whole stack, in two tabs for two people."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from holdfast.client import Client
from holdfast.gateway.demo import DEMO_PATH
from holdfast.local.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

WAIT_MS = 60_000


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    stack = Stack(server_folder / uuid4().hex)
    stack.start()
    yield stack
    stack.stop()


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.ingest_url, stack.api_key) as client:
        yield client


def send(client: Client, audience: str) -> str:
    """An event for this audience; returns its id."""
    repository = {"full_name": f"acme/{uuid4().hex}"}
    return client.send({
        "type": "com.github.push", "source": "/test", "audience": audience,
        "data": {"ref": "refs/heads/main", "repository": repository},
    }).event_id  # fmt: skip


def show(tab: Any, stack: Stack, client: Client, audience: str) -> None:
    """Open the page and connect it, as somebody would."""
    tab.page.goto(stack.demo_url)
    tab.page.get_by_label("Live token").fill(client.token([f"audience:{audience}"]).token)
    assert tab.page.get_by_label("Topics").input_value() == f"audience:{audience}"
    tab.page.get_by_role("button", name="Connect", exact=True).click()
    tab.page.locator("#log").get_by_text("is live").wait_for(timeout=WAIT_MS)


def await_processed(tab: Any, event_ids: list[str]) -> None:
    for event_id in event_ids:
        tab.page.locator(f'tr[data-event="{event_id}"][data-state="processed"]').wait_for(timeout=WAIT_MS)


def shown(tab: Any) -> set[str]:
    return set(tab.page.locator("#events tr").evaluate_all("rows => rows.map(row => row.dataset.event)"))


def test_two_tabs_see_their_own_events_and_miss_nothing_while_the_gateway_is_killed(
    stack: Stack, client: Client, open_tab: Callable[[], Any], tmp_path: Path
) -> None:
    people = [f"user-{uuid4().hex}" for _ in range(2)]
    tabs = [open_tab() for _ in people]
    for tab, person in zip(tabs, people, strict=True):
        show(tab, stack, client, person)

    sent = {person: [send(client, person) for _ in range(3)] for person in people}
    for tab, person in zip(tabs, people, strict=True):
        await_processed(tab, sent[person])
        assert tab.errors == []
    stack.services["ws-gateway"].kill()
    stack.hold("ws-gateway")
    for tab in tabs:
        tab.page.locator('#status[data-state="disconnected"]').wait_for(timeout=WAIT_MS)
    for person in people:
        sent[person] += [send(client, person) for _ in range(3)]
    for event_id in [id_ for ids in sent.values() for id_ in ids]:
        client.wait(event_id, timeout_seconds=60)
    stack.resume("ws-gateway")

    for tab, person in zip(tabs, people, strict=True):
        await_processed(tab, sent[person])
        assert shown(tab) == set(sent[person])
        said = tab.page.locator("#log").inner_text()
        assert "nothing was missed" in said
        assert "gap" not in said
        # The browser itself notes each attempt while nobody answers; nothing else may be wrong.
        assert [text for text in tab.errors if "net::ERR_CONNECTION_REFUSED" not in text] == []
    tabs[0].page.screenshot(path=str(tmp_path / "demo.png"))


def test_the_page_runs_nothing_that_is_written_into_it(stack: Stack, open_tab: Callable[[], Any]) -> None:
    tab = open_tab()
    answer = tab.page.goto(stack.demo_url)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert tab.errors == []
    assert (
        tab.page.evaluate("getComputedStyle(document.querySelector('form')).display") == "flex"
    )  # its style is let in
    tab.page.evaluate("document.body.append(Object.assign(document.createElement('p'), {textContent: 'unharmed'}))")
    with pytest.raises(Exception, match=r"TrustedHTML|TrustedScript"):
        tab.page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    assert DEMO_PATH in tab.page.url
