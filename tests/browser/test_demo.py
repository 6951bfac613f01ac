"""The demo in front of the whole stack: what somebody sees who orders, breaks things, and comes back."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.chaos.proxy import Proxy

from holdfast.client import Client
from holdfast.gateway.demo.page import DEMO_PATH
from holdfast.local.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

WAIT_MS = 60_000
LEASE_SECONDS = 6

OpenTab = Callable[..., Any]

LOOKS = [(width, theme) for width in (1280, 390) for theme in ("light", "dark")]


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    """As ``make run`` starts it, with leases that a test can wait for."""
    with Stack(server_folder / uuid4().hex, settings={"HOLDFAST_LEASE_SECONDS": str(LEASE_SECONDS)}) as stack:
        yield stack


class Person:
    """Somebody with the page in a tab of its own."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.page = tab.page

    def look(self, url: str) -> None:
        self.page.goto(url)
        self.await_status("live")

    def await_status(self, state: str) -> None:
        self.page.locator(f'#status[data-state="{state}"]').wait_for(timeout=WAIT_MS)

    def order(self, name: str) -> None:
        self.page.get_by_role("button", name=f"Order {name}").click()

    def card(self, goods: str, **data: str) -> Any:
        """The newest card of these goods that is so."""
        attributes = "".join(f'[data-{name}="{value}"]' for name, value in data.items())
        return self.page.locator(f'.card[data-goods="{goods}"]{attributes}').first

    def await_card(self, goods: str, **data: str) -> Any:
        card = self.card(goods, **data)
        card.wait_for(timeout=WAIT_MS)
        return card

    def send(self, client: Client) -> str:
        """Send an order that is not placed on the page, to the same person; returns its id."""
        event = {
            "type": "shop.order.placed", "source": "/test", "subject": "beans/ABCDEF", "audience": self.audience,
            "data": {"order": "ABCDEF", "item": "beans"},
        }  # fmt: skip
        return client.send(event).event_id

    @property
    def audience(self) -> str:
        kept = self.page.evaluate("JSON.parse(sessionStorage.getItem('holdfast-demo-1')).topic")
        return str(kept.removeprefix("audience:"))

    @property
    def offsets(self) -> list[int]:
        """Of the ledger, the oldest first."""
        found = self.page.locator("#ledger tr").evaluate_all("rows => rows.map(row => Number(row.dataset.offset))")
        return [int(offset) for offset in reversed(found)]

    @property
    def missed(self) -> int:
        return int(self.page.locator('#ledger tr[data-missed="true"]').count())

    def await_missed(self) -> None:
        self.page.locator('#ledger tr[data-missed="true"]').first.wait_for(timeout=WAIT_MS)

    def has_missed_nothing(self) -> None:
        """No offset is left out, and the page says so."""
        offsets = self.offsets
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
        assert self.page.locator("#proof-title").inner_text() == "Nothing missed"

    @property
    def errors(self) -> list[str]:
        """What is wrong beside what the browser itself notes of each attempt while nobody answers."""
        noise = ("WebSocket connection to", "net::ERR_")
        return [text for text in self.tab.errors if not any(word in text for word in noise)]


@pytest.fixture
def person(open_tab: OpenTab) -> Person:
    return Person(open_tab(width=1280))


@pytest.fixture
def people(open_tab: OpenTab) -> list[Person]:
    return [Person(open_tab(width=width)) for width in (1280, 390)]


def violations(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA and its own best practices."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']}: {[node['html'] for node in each['nodes']]}" for each in found]


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_an_order_is_watched_until_it_is_processed(
    stack: Stack, open_tab: OpenTab, tmp_path: Path, width: int, theme: str
) -> None:
    person = Person(open_tab(width=width, color_scheme=theme, reduced_motion="reduce"))
    person.look(stack.demo_url)
    assert violations(person.page) == []

    person.order("coffee beans")
    person.order("a unicorn mug")
    working = person.await_card("beans", state="processing")
    working.get_by_text("Leased for 6 s at a time").wait_for(timeout=WAIT_MS)
    assert person.page.evaluate("document.getAnimations().length") == 0, "nothing moves for those who asked for that"
    person.await_card("unicorn", state="dead")
    person.page.get_by_text("Raw frames").click()
    assert violations(person.page) == []

    done = person.await_card("beans", state="processed")

    story = done.locator(".story li").all_inner_texts()
    assert [words in line for words, line in zip(("Accepted", "A worker", "Done"), story, strict=True)] == [True] * 3
    person.has_missed_nothing()
    assert person.missed == 0
    assert violations(person.page) == []
    assert person.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is as wide as the screen"
    assert person.tab.errors == []
    person.page.screenshot(path=str(tmp_path / f"demo-{width}-{theme}.png"), full_page=True)


def test_a_gift_card_fails_twice_and_is_tried_again(stack: Stack, person: Person) -> None:
    person.look(stack.demo_url)
    person.order("a gift card")

    failed = person.await_card("giftcard", state="failed", attempt="1")
    failed.get_by_text("The next attempt begins in").wait_for(timeout=WAIT_MS)
    done = person.await_card("giftcard", state="processed", attempt="3")

    assert done.get_by_text("the payment provider does not answer").count() == 2
    person.has_missed_nothing()
    assert person.tab.errors == []


def test_a_dead_letter_is_replayed_from_the_keyboard(stack: Stack, person: Person) -> None:
    person.look(stack.demo_url)
    for _ in range(4):
        person.page.keyboard.press("Tab")
    assert person.page.evaluate("document.activeElement.dataset.goods") == "unicorn"
    person.page.keyboard.press("Enter")
    dead = person.await_card("unicorn", state="dead")
    assert dead.get_by_text("there are no unicorn mugs").is_visible()

    dead.get_by_role("button", name="Replay Unicorn mug").press("Enter")

    dead.get_by_text("You sent it round again").wait_for(timeout=WAIT_MS)
    person.await_card("unicorn", state="dead", version="6")
    person.has_missed_nothing()
    assert person.tab.errors == []


def test_an_order_whose_processor_is_killed_is_seen_to_be_recovered(stack: Stack, person: Person) -> None:
    person.look(stack.demo_url)
    person.order("an espresso machine")
    working = person.await_card("machine", state="processing")
    working.get_by_text("taking it off the shelf").wait_for(timeout=WAIT_MS)

    for pid in stack.describe()["pids"]["processor"]:
        os.kill(pid, signal.SIGKILL)

    working.get_by_text("Nothing heard from its worker").wait_for(timeout=WAIT_MS)
    working.get_by_text("The lease ran out").wait_for(timeout=WAIT_MS)
    working.get_by_text("Attempt 2: a worker has taken it").wait_for(timeout=WAIT_MS)
    done = person.await_card("machine", state="processed")
    assert done.get_attribute("data-attempt") == "2"
    person.has_missed_nothing()
    assert person.tab.errors == []


def test_what_happens_while_somebody_is_offline_arrives_in_order(stack: Stack, open_tab: OpenTab) -> None:
    person = Person(open_tab(width=390))
    person.look(stack.demo_url)
    person.order("coffee beans")
    person.await_card("beans", state="processed")
    seen = person.offsets

    person.page.get_by_role("button", name="Go offline").click()
    person.await_status("offline")
    person.order("a unicorn mug")
    person.await_card("unicorn").get_by_text("You are offline").wait_for(timeout=WAIT_MS)
    assert person.offsets == seen
    person.page.get_by_role("button", name="Come back online").click()

    person.await_card("unicorn", state="dead")
    person.has_missed_nothing()
    assert person.offsets[: len(seen)] == seen
    assert person.missed > 0
    assert "while you were away" in person.page.locator("#proof-text").inner_text()
    assert person.tab.errors == []


def test_what_happens_while_the_page_is_away_arrives_after_the_reload(
    stack: Stack, person: Person, client: Client
) -> None:
    person.look(stack.demo_url)
    person.order("coffee beans")
    person.await_card("beans", state="processed")
    seen = person.offsets

    audience = person.audience
    person.page.goto("about:blank")
    event = {"type": "shop.order.placed", "audience": audience, "data": {"order": "A", "item": "beans"}}
    missed = client.send({"source": "/test", **event}).event_id
    client.wait(missed, timeout_seconds=60)
    person.look(stack.demo_url)

    person.page.locator(f'.card[data-order="{missed}"][data-state="processed"]').wait_for(timeout=WAIT_MS)
    assert person.offsets[: len(seen)] == seen
    assert person.offsets[-1] - seen[-1] == person.missed
    person.has_missed_nothing()
    assert person.tab.errors == []


def test_two_tabs_see_their_own_orders_and_miss_nothing_while_the_gateway_is_killed(
    stack: Stack, client: Client, people: list[Person]
) -> None:
    own = {}
    for person in people:
        person.look(stack.demo_url)
        person.order("coffee beans")
        person.await_card("beans", state="processed")
        assert person.tab.errors == []

    stack.services["ws-gateway"].kill()
    stack.hold("ws-gateway")
    for person in people:
        person.await_status("disconnected")
        own[person] = [person.send(client) for _ in range(3)]
    for person in people:
        client.wait(own[person][-1], timeout_seconds=60)
    stack.resume("ws-gateway")

    for person in people:
        for event_id in own[person]:
            person.page.locator(f'.card[data-order="{event_id}"][data-state="processed"]').wait_for(timeout=WAIT_MS)
        assert person.page.locator(".card").count() == 4, "nobody else's"
        assert person.missed > 0
        person.has_missed_nothing()
        assert person.errors == []


def test_two_tabs_miss_nothing_while_the_network_is_gone(stack: Stack, client: Client, people: list[Person]) -> None:
    gateway_port = int(stack.demo_url.partition("127.0.0.1:")[2].partition("/")[0])
    with Proxy(gateway_port) as network:
        for person in people:
            person.look(stack.demo_url.replace(f":{gateway_port}", f":{network.port}"))
            person.order("coffee beans")
            person.await_card("beans", state="processed")

        network.refuse()
        network.close_connections()
        for person in people:
            person.await_status("disconnected")
        missed = {person: person.send(client) for person in people}
        for event_id in missed.values():
            client.wait(event_id, timeout_seconds=60)
        network.accept()

        for person, event_id in missed.items():
            person.page.locator(f'.card[data-order="{event_id}"][data-state="processed"]').wait_for(timeout=WAIT_MS)
            assert person.missed > 0
            person.has_missed_nothing()
            assert person.errors == []


def test_the_page_runs_nothing_that_is_written_into_it(stack: Stack, open_tab: OpenTab) -> None:
    tab = open_tab()
    answer = tab.page.goto(stack.demo_url)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert tab.errors == []
    assert tab.page.evaluate("getComputedStyle(document.querySelector('main')).display") == "grid", (
        "its style is let in"
    )
    tab.page.evaluate("document.body.append(Object.assign(document.createElement('p'), {textContent: 'unharmed'}))")
    with pytest.raises(Exception, match=r"TrustedHTML|TrustedScript"):
        tab.page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    assert DEMO_PATH in tab.page.url


def test_the_token_is_not_shown_among_the_frames(stack: Stack, person: Person) -> None:
    tokens: list[str] = []
    person.page.on(
        "response", lambda answer: tokens.append(answer.json()["token"]) if answer.url.endswith("session") else None
    )
    person.look(stack.demo_url)
    person.page.get_by_text("Raw frames").click()

    sent = person.page.locator('#frames li[data-direction="out"]').first
    sent.wait_for(timeout=WAIT_MS)

    assert '"token":"…"' in sent.inner_text()
    assert tokens
    assert all(token not in person.page.content() for token in tokens)
