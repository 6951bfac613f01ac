"""``libs/client-js`` in a real browser, against a real gateway: what a page is told, and when."""

import itertools
import json
import signal
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from tests.browser.conftest import open_idle_page
from websockets.sync.client import connect

from holdfast.client import Client
from holdfast.local.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

WAIT_MS = 60_000

Send = Callable[[str], str]

OPEN = """
async ([token, topics, transport]) => {
  const { connect } = await import("./holdfast-live.js");
  const told = (window.told = { updates: [], gaps: [], statuses: [], subscribed: [], errors: [], tokens: 0 });
  window.live = connect("/v1/live", {
    transport,
    token: token === null ? () => { told.tokens++; return window.freshToken(); } : token,
    onUpdate: (event, topic) => told.updates.push([event.id, event.version, event.step, event.state]),
    onGap: (topic, reason) => told.gaps.push(reason),
    onSubscribed: (topic, recovered) => told.subscribed.push([topic, recovered]),
    onStatus: (status) => window.told.statuses.push(status),
    onError: (error) => told.errors.push(error),
  });
  if (topics.length) window.live.subscribe(topics);
}
"""


class Page:
    """A page whose script uses the client."""

    def __init__(self, tab: Any, stack: Stack) -> None:
        self.tab = tab
        self._page = tab.page
        open_idle_page(self._page, stack)

    def connect(self, token: str | Callable[[], str], *topics: str, transport: str = "websocket") -> None:
        if callable(token):
            self._page.expose_function("freshToken", token)
        self._page.evaluate(OPEN, [None if callable(token) else token, list(topics), transport])

    def evaluate(self, script: str, *values: Any) -> Any:
        return self._page.evaluate(script, list(values))

    def until(self, condition: str) -> None:
        self._page.wait_for_function(condition, timeout=WAIT_MS)

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = self._page.evaluate("window.told")
        return told


@pytest.fixture
def page(stack: Stack, open_tab: Callable[..., Any]) -> Page:
    return Page(open_tab(bypass_csp=True), stack)


@pytest.fixture
def audience() -> str:
    return f"user-{uuid4().hex}"


def settle(client: Client, event_ids: list[str]) -> None:
    for event_id in event_ids:
        client.wait(event_id, timeout_seconds=60)


def break_gateway(stack: Stack, page: Page) -> None:
    stack.services["ws-gateway"].kill()
    stack.hold("ws-gateway")
    page.until("window.told.statuses.some((status) => status.state === 'disconnected')")


def is_told_once_in_order(page: Page, event_id: str) -> None:
    own = [update for update in page.told["updates"] if update[0] == event_id]
    moves = [(version, step) for _, version, step, _ in own]
    assert moves == sorted(set(moves))
    assert list(dict.fromkeys(state for *_, state in own)) == ["queued", "processing", "processed"]


def test_each_update_is_told_once_though_it_comes_by_two_topics(
    client: Client, page: Page, audience: str, send: Send
) -> None:
    event_topics = [f"audience:{audience}", "tenant:demo"]
    page.connect(client.token(event_topics).token, *event_topics)
    page.until("window.told.subscribed.length === 2")

    event_id = send(audience)

    page.until(f"window.told.updates.some(([id, , , state]) => id === '{event_id}' && state === 'processed')")
    is_told_once_in_order(page, event_id)
    assert page.tab.errors == []


def test_what_comes_during_a_fetch_is_shown_in_the_order_in_which_it_came(
    client: Client, page: Page, audience: str
) -> None:
    topic = f"audience:{audience}"
    page.connect(client.token([topic]).token)
    page.evaluate(
        """([topic]) => {
          window.shown = [];
          window.live.follow(topic, {
            fetch: () => new Promise((resolve) => { window.letGo = () => resolve([]); }),
            show: (event) => { window.shown.push([event.id, event.version]); },
          });
        }""",
        topic,
    )
    page.until("window.letGo !== undefined")  # it is live, then
    event = {"type": "com.acme.unheard-of", "source": "/test", "audience": audience}  # queued, processing, dead
    first, second = (client.send(event).event_id for _ in range(2))
    settle(client, [first, second])
    client.replay(first)

    page.until("Object.values(window.live.positions)[0].endsWith(':9')")
    page.evaluate("() => window.letGo()")

    page.until("window.shown.length === 2")
    assert page.evaluate("() => window.shown") == [[second, 3], [first, 6]]


def test_a_page_that_follows_shows_the_truth_also_after_redis_has_forgotten(
    stack: Stack, client: Client, page: Page, audience: str, send: Send
) -> None:
    topic = f"audience:{audience}"
    page.tab.page.expose_function("fetchEvents", lambda: [event.raw for event in client.events(audience=audience)])
    before = [send(audience) for _ in range(3)]
    settle(client, before)

    page.connect(client.token([topic]).token)
    page.evaluate(
        """([topic]) => {
          window.shown = {};
          window.end = window.live.follow(topic, {
            fetch: () => window.fetchEvents(),
            show: (event) => { window.shown[event.id ?? event.event_id] = [event.version, event.state]; },
          });
        }""",
        topic,
    )
    page.until("Object.keys(window.shown).length === 3")
    break_gateway(stack, page)
    settle(client, [send(audience) for _ in range(3)])  # all there is to tell of them is told now, and forgotten
    stack.redis.execute("FLUSHALL")
    stack.resume("ws-gateway")

    page.until(
        "window.told.gaps.length > 0 && Object.values(window.shown).filter(([, state]) => state === 'processed').length === 6"
    )
    truth = {event.event_id: [event.version, event.state] for event in client.events(audience=audience)}
    assert page.evaluate("() => window.shown") == truth
    assert page.told["updates"] == [], "a topic that is followed is told to its own function"
    page.evaluate("() => window.end()")
    assert page.evaluate("() => window.live.positions") == {}
    assert page.told["gaps"] == ["epoch"]


def test_more_topics_than_fit_into_a_frame_are_all_resumed(
    stack: Stack, client: Client, page: Page, audience: str, send: Send
) -> None:
    event_ids = [send(audience) for _ in range(100)]
    settle(client, event_ids)
    topics = [f"audience:{audience}", *(f"event:{event_id}" for event_id in event_ids)]
    page.connect(client.token(["audience:*", "event:*"]).token, *topics)
    page.until("window.told.subscribed.length === 101")

    break_gateway(stack, page)
    missed = [send(audience) for _ in range(3)]
    settle(client, missed)
    stack.resume("ws-gateway")

    page.until("window.told.subscribed.length === 202")
    told = page.told
    assert {recovered for _, recovered in told["subscribed"][101:]} == {True}
    assert {id_ for id_, *_, state in told["updates"] if state == "processed"} == set(missed)
    assert (told["gaps"], told["errors"]) == ([], [])


def test_a_reloaded_page_goes_on_from_the_positions_that_it_kept(
    client: Client, page: Page, audience: str, send: Send
) -> None:
    topic = f"audience:{audience}"
    token = client.token([topic]).token
    page.connect(token, topic)
    page.until("window.told.subscribed.length === 1")
    kept = page.evaluate("() => window.live.positions")
    page.tab.page.reload()
    event_id = send(audience)
    settle(client, [event_id])

    page.connect(token)
    page.evaluate("([topic, kept]) => window.live.subscribe(topic, kept)", topic, kept)

    page.until("window.told.subscribed.length === 1")
    assert page.told["subscribed"] == [[topic, True]]
    is_told_once_in_order(page, event_id)


def test_a_token_is_refreshed_before_it_expires_and_the_connection_stays(
    client: Client, page: Page, audience: str
) -> None:
    topic = f"audience:{audience}"
    page.connect(lambda: client.token([topic], ttl_seconds=10).token, topic)

    page.until("window.told.tokens >= 3")

    assert [status["state"] for status in page.told["statuses"]] == ["connecting", "live"]
    assert page.told["errors"] == []


def test_a_topic_that_was_subscribed_with_an_expired_token_is_live_with_the_next_one(
    client: Client, page: Page, audience: str, send: Send
) -> None:
    topics = [f"audience:{audience}", f"audience:{audience}-later"]
    calls = itertools.count(1)

    def token() -> str:
        if next(calls) in (2, 3):  # in good time, and when the gateway says that it has expired
            raise ConnectionError("the backend is away")
        return client.token(topics, ttl_seconds=10).token

    page.connect(token, topics[0])
    page.until("window.told.errors.length === 2")
    page.evaluate("([topic]) => window.live.subscribe(topic)", topics[1])

    page.until(f"window.told.subscribed.some(([topic]) => topic === '{topics[1]}')")
    event_id = send(f"{audience}-later")
    page.until(f"window.told.updates.some(([id, , , state]) => id === '{event_id}' && state === 'processed')")
    assert {error["code"] for error in page.told["errors"]} == {"token"}


def test_what_is_refused_for_good_is_not_tried_again(page: Page) -> None:
    page.connect("nonsense", "audience:a")

    page.until("window.told.statuses.at(-1).state === 'closed'")

    told = page.told["statuses"]
    assert [status["state"] for status in told] == ["connecting", "closed"]
    assert told[-1]["code"] == 4501


def test_a_client_without_a_token_says_what_it_needs(page: Page) -> None:
    with pytest.raises(Exception, match="needs a token"):
        page.connect("")


def test_whoever_takes_the_session_over_has_it(stack: Stack, client: Client, page: Page, audience: str) -> None:
    token = client.token([f"audience:{audience}"]).token
    page.connect(token, f"audience:{audience}")
    page.until("window.told.subscribed.length === 1")

    with connect(stack.live_url, compression=None) as other:
        session = page.evaluate("() => window.live.session")
        other.send(json.dumps({"type": "hello", "v": 1, "token": token, "session": session}))
        assert json.loads(other.recv(timeout=10))["session"] == session
        page.until("window.told.statuses.at(-1).state === 'closed'")

    assert page.told["statuses"][-1]["code"] == 4503


def test_a_topic_that_is_not_granted_is_told_and_the_others_live(
    client: Client, page: Page, audience: str, send: Send
) -> None:
    topic = f"audience:{audience}"
    page.connect(client.token([topic]).token, topic, "tenant:other")
    page.until("window.told.subscribed.length === 1 && window.told.errors.length === 1")

    event_id = send(audience)

    page.until(f"window.told.updates.some(([id, , , state]) => id === '{event_id}' && state === 'processed')")
    assert [error["code"] for error in page.told["errors"]] == ["forbidden"]


def test_a_connection_that_the_browser_refuses_to_open_is_told_and_tried_again(
    client: Client, page: Page, audience: str
) -> None:
    page.evaluate(
        """() => {
          const Real = window.WebSocket;
          window.WebSocket = class { constructor() { window.WebSocket = Real; throw new DOMException("forbidden here"); } };
        }"""
    )

    page.connect(client.token([f"audience:{audience}"]).token, f"audience:{audience}")

    page.until("window.told.subscribed.length === 1")
    assert [error["code"] for error in page.told["errors"]] == ["connect"]
    assert [status["state"] for status in page.told["statuses"]] == ["connecting", "disconnected", "connecting", "live"]


@pytest.mark.parametrize("signal_name", ["online", "pageshow"])
def test_a_connection_that_is_dead_without_having_been_closed_is_noticed_when_the_network_is_back(
    stack: Stack, client: Client, page: Page, audience: str, send: Send, signal_name: str
) -> None:
    page.connect(client.token([f"audience:{audience}"]).token, f"audience:{audience}")
    page.until("window.told.subscribed.length === 1")
    stack.services["ws-gateway"].send(signal.SIGSTOP)
    try:
        page.evaluate("([name]) => window.dispatchEvent(new Event(name))", signal_name)
        page.tab.page.wait_for_function(
            "window.told.statuses.some((status) => status.reason === 'not a sign of life')",
            timeout=20_000,  # without a probe it is 25 s of silence until a ping is due, and 15 s more
        )
    finally:
        stack.services["ws-gateway"].send(signal.SIGCONT)

    event_id = send(audience)
    page.until(f"window.told.updates.some(([id, , , state]) => id === '{event_id}' && state === 'processed')")
    is_told_once_in_order(page, event_id)


def test_a_live_connection_that_is_doubted_stays(client: Client, page: Page, audience: str, send: Send) -> None:
    page.connect(client.token([f"audience:{audience}"]).token, f"audience:{audience}")
    page.until("window.told.subscribed.length === 1")

    page.evaluate("() => { for (let i = 0; i < 3; i++) window.dispatchEvent(new Event('online')); }")

    event_id = send(audience)
    page.until(f"window.told.updates.some(([id, , , state]) => id === '{event_id}' && state === 'processed')")
    assert [status["state"] for status in page.told["statuses"]] == ["connecting", "live"]


def test_server_sent_events_survive_an_expired_token_and_a_gateway_that_is_away(
    stack: Stack, client: Client, page: Page, audience: str, send: Send
) -> None:
    topic = f"audience:{audience}"
    page.connect(lambda: client.token([topic], ttl_seconds=10).token, topic, transport="sse")
    page.until("window.told.subscribed.length === 1")
    first = send(audience)
    page.until(f"window.told.updates.some(([id, , , state]) => id === '{first}' && state === 'processed')")

    break_gateway(stack, page)
    missed = send(audience)
    settle(client, [missed])
    stack.resume("ws-gateway")

    page.until(f"window.told.updates.some(([id, , , state]) => id === '{missed}' && state === 'processed')")
    for event_id in (first, missed):
        is_told_once_in_order(page, event_id)
    assert page.told["gaps"] == []


def test_topics_are_added_and_left_over_server_sent_events_too(
    client: Client, page: Page, audience: str, send: Send
) -> None:
    topics = [f"audience:{audience}", f"audience:{audience}-too"]
    page.connect(client.token(topics).token, transport="sse")
    page.until("window.told.statuses.at(-1)?.state === 'live'")

    page.evaluate("([topics]) => window.live.subscribe(topics)", topics)
    page.until("window.told.subscribed.length === 2")
    page.evaluate("([topic]) => window.live.unsubscribe(topic)", topics[0])
    unheard, heard = send(audience), send(f"{audience}-too")

    page.until(f"window.told.updates.some(([id, , , state]) => id === '{heard}' && state === 'processed')")
    assert unheard not in {id_ for id_, *_ in page.told["updates"]}


def test_what_is_refused_for_good_over_server_sent_events_is_not_tried_again(page: Page) -> None:
    page.connect("nonsense", "audience:a", transport="sse")

    page.until("window.told.statuses.at(-1).state === 'closed'")

    assert page.told["statuses"][-1]["code"] == 4501
