"""The console in front of the whole stack: by mouse and by keyboard, on a desk and a phone, in both themes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.browser.console import (
    HOSTILE,
    WAIT_MS,
    WIDTHS,
    Open,
    database_of,
    held,
    look_at,
    made_key,
    sign_in,
    until,
    violations,
)

from holdfast.client import Client
from holdfast.local.stack import Stack
from holdfast.storage import nodes
from holdfast.storage.nodes import Beat, Identity, Running

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def viewer_key(stack: Stack) -> str:
    return made_key(stack, "demo", "events:read")


def hostile_node(stack: Stack, event_id: str) -> Identity:
    """A worker that has just spoken, with markup wherever it says something, and that says nothing more."""
    who = Identity(
        uuid4().hex[:12], "processor", HOSTILE, 10, HOSTILE, HOSTILE, 11, slots=8,
        types=(HOSTILE, *(f"com.example.type-{number}" for number in range(30))),
    )  # fmt: skip
    runs = Running(event_id, "demo", HOSTILE, 1, "2026-11-28T09:30:00+00:00")
    with database_of(stack) as database:
        database.call(nodes.enter, who, is_drained=False)
        said = Beat(busy=2, running=(runs, replace(runs, tenant="other")))
        assert nodes.beat(database, who, said, polled_seconds=1.0)
    return who


@pytest.fixture
def dead(client: Client) -> str:
    """An event that nobody handles."""
    sent = client.send({"type": "com.example.nobody", "source": "/test", "subject": HOSTILE, "data": {"note": HOSTILE}})
    client.wait(sent.event_id, timeout_seconds=60)
    return sent.event_id


def replayed(stack: Stack, error_type: str) -> str:
    """A replay; returns its id."""
    answer = httpx.post(
        f"{stack.ingest_url}/v1/replays", headers={"Authorization": f"Bearer {stack.api_key}"},
        json={"filter": {"error_type": error_type}, "rate_per_s": 0.01},
    )  # fmt: skip
    return str(answer.json()["replay_id"])


def discarded(stack: Stack, error_type: str) -> str:
    """A discard; returns its id."""
    answer = httpx.post(
        f"{stack.ingest_url}/v1/discards", headers={"Authorization": f"Bearer {stack.api_key}"},
        json={"filter": {"error_type": error_type}},
    )  # fmt: skip
    return str(answer.json()["discard_id"])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_screen_is_free_of_errors_and_within_its_width_and_axe_finds_nothing(
    stack: Stack, client: Client, open_console: Open, send: Callable[[str], str], dead: str, tmp_path: Path, width: str,
    theme: str,
) -> None:  # fmt: skip
    processed = send("user-42")
    client.wait(processed, timeout_seconds=60)
    replay, discard = replayed(stack, "no_handler"), discarded(stack, "no_handler_any_more")
    key_id = made_key(stack, "demo", "events:read", name=HOSTILE).split("_")[1]
    hostile_node(stack, processed)
    page = open_console(width=WIDTHS[width], theme=theme, bypass_csp=True)
    screens = {
        "overview": "", "events": "events", "filtered": "events?state=dead&source=/test", "none": "events?type=none",
        "dead-event": f"events/{dead}", "processed-event": f"events/{processed}?payload=raw",
        "edit-event": f"events/{processed}/edit", "dead-letters": "dead-letters",
        "new-replay": "replays/new?error_type=no_handler", "replays": "replays", "replay": f"replays/{replay}",
        "new-discard": "discards/new?error_type=no_handler", "discards": "discards", "discard": f"discards/{discard}",
        "handlers": "handlers", "workers": "workers", "audit": "audit", "keys": "keys", "schedules": "schedules",
        "new-key": "keys/new", "key": f"keys/{key_id}", "tenant": "tenant",
    }  # fmt: skip

    def look(names: dict[str, str]) -> list[str]:
        addresses = {name: f"{stack.console_url}{path}" for name, path in names.items()}
        return look_at(page, addresses, width=width, theme=theme, folder=tmp_path)

    wide = look(screens)
    with held(stack, "processor"):
        wide += look({"waiting-event": f"events/{send('user-42')}"})
    assert not wide, "\n".join(wide)
    assert page.said == []
    assert page.title() != "taken"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_at_the_door_in_the_first_run_and_in_what_opens(
    stack: Stack, open_console: Open, dead: str, width: str, theme: str
) -> None:
    page = open_console(width=WIDTHS[width], theme=theme, key="", bypass_csp=True)
    assert violations(page) == []
    page.get_by_label("API key").fill("hf_nobody")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for(timeout=WAIT_MS)
    assert violations(page) == []
    sign_in(page, made_key(stack, f"new-{uuid4().hex}", "events:read"))
    assert page.get_by_role("heading", name="Send a first event").is_visible()
    assert violations(page) == []

    page = open_console(width=WIDTHS[width], theme=theme, bypass_csp=True)
    page.goto(f"{stack.console_url}events/{dead}")
    page.get_by_role("button", name="Discard").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.locator(".account-button").click()
    assert violations(page) == []
    page.goto(f"{stack.console_url}events/{uuid4()}")
    assert violations(page) == []
    page.goto(f"{stack.console_url}keys/{made_key(stack, 'demo', 'events:read').split('_')[1]}")
    for name in ("Rotate", "Revoke"):
        page.get_by_role("button", name=name).first.click()
        assert page.get_by_role("dialog").is_visible()
        assert violations(page) == [], name
        page.keyboard.press("Escape")
    page.goto(f"{stack.console_url}workers")
    page.get_by_role("button", name="Drain").first.click()
    assert violations(page) == []


def test_an_event_is_found_and_replayed_by_keyboard_alone(stack: Stack, open_console: Open, dead: str) -> None:
    page = open_console(key="")
    page.keyboard.type(stack.api_key)  # the field has the focus
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Overview").wait_for(timeout=WAIT_MS)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"

    until(page, lambda: page.evaluate("document.activeElement.textContent").strip() == "Events", "Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/events")
    until(page, lambda: page.evaluate("document.activeElement.name") == "q")
    page.keyboard.type(dead)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/console/events/{dead}")
    until(page, lambda: page.evaluate("document.activeElement.id") == "replay-button")
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()
    assert page.evaluate("document.activeElement.textContent") == "Replay", "the question has the focus"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "replay-button", "and gives it back"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")

    page.get_by_text("queued again, with all of its attempts").wait_for(timeout=WAIT_MS)
    page.locator("#timeline").get_by_text("replayed by an operator").wait_for(timeout=WAIT_MS)
    assert page.said == []


def test_the_list_moves_live_and_goes_on_by_polling_without_gateway_and_redis(
    stack: Stack, open_console: Open, send: Callable[[str], str]
) -> None:
    page = open_console()
    page.goto(f"{stack.console_url}events")
    page.locator('[data-live-switch][data-state="live"]').wait_for(timeout=WAIT_MS)
    first = send("user-1")
    page.locator(f"#e-{first} .badge.processed").wait_for(timeout=4_000)  # sooner than any poll
    assert page.said == []

    stack.hold("ws-gateway")
    stack.redis.stop()
    page.locator('[data-live-switch][data-state="polling"]').wait_for(timeout=WAIT_MS)
    second = send("user-1")
    page.locator(f"#e-{second} .badge.processed").wait_for(timeout=WAIT_MS)

    stack.redis.start()
    stack.resume("ws-gateway")
    page.locator('[data-live-switch][data-state="live"]').wait_for(timeout=WAIT_MS)


def test_while_ingest_is_away_the_page_says_so_and_comes_back(stack: Stack, open_console: Open) -> None:
    page = open_console()
    page.goto(f"{stack.console_url}events")
    page.locator('[data-live-switch][data-state="live"]').wait_for(timeout=WAIT_MS)

    stack.hold("ingest")
    page.locator('[data-live-switch][data-state="away"]').wait_for(timeout=60_000)
    stack.resume("ingest")
    page.locator('[data-live-switch][data-state="live"]').wait_for(timeout=60_000)


def test_a_paused_page_stands_still(stack: Stack, open_console: Open, send: Callable[[str], str]) -> None:
    page = open_console()
    page.goto(f"{stack.console_url}events")
    page.locator('[data-live-switch][data-state="live"]').wait_for(timeout=WAIT_MS)
    page.get_by_role("button", name="Live").click()
    paused = page.locator("#events").inner_html()
    sent = send("user-1")
    with Client(stack.ingest_url, stack.api_key) as client:
        client.wait(sent, timeout_seconds=60)

    assert page.locator("#events").inner_html() == paused
    page.get_by_role("button", name="Paused").click()
    page.locator(f"#e-{sent}").wait_for(timeout=WAIT_MS)


def test_a_group_is_replayed_and_its_progress_is_watched(stack: Stack, open_console: Open, client: Client) -> None:
    kind = f"com.example.{uuid4().hex}"
    for _ in range(4):
        client.wait(client.send({"type": kind, "source": "/test", "data": {}}).event_id, timeout_seconds=60)
    page = open_console()
    page.goto(f"{stack.console_url}dead-letters")
    page.locator("tr", has_text=kind).get_by_role("link", name="Replay").click()
    page.get_by_role("heading", name="Replay 4 events?").wait_for(timeout=WAIT_MS)
    page.get_by_label("Events a second").fill("2")
    page.get_by_role("button", name="Start the replay").click()

    page.get_by_text("4 replayed, 0 skipped, 0 to go").wait_for(timeout=WAIT_MS)
    page.locator("#title .badge.done").wait_for(timeout=WAIT_MS)
    assert page.said == []


def test_a_group_is_discarded_and_its_progress_is_watched(stack: Stack, open_console: Open, client: Client) -> None:
    kind = f"com.example.{uuid4().hex}"
    sent = [client.send({"type": kind, "source": "/test", "data": {}}).event_id for _ in range(3)]
    for each in sent:
        client.wait(each, timeout_seconds=60)
    page = open_console()
    page.goto(f"{stack.console_url}dead-letters")
    page.locator("tr", has_text=kind).get_by_role("link", name="Discard").click()
    page.get_by_role("heading", name="Discard 3 events?").wait_for(timeout=WAIT_MS)
    page.get_by_role("button", name="Discard 3 events").click()

    page.get_by_text("3 discarded, 0 skipped, 0 to go").wait_for(timeout=WAIT_MS)
    page.locator("#title .badge.done").wait_for(timeout=WAIT_MS)
    assert {client.get(each).state for each in sent} == {"discarded"}
    assert page.said == []


def test_a_node_is_drained_and_undrained_by_keyboard_alone(stack: Stack, open_console: Open) -> None:
    page = open_console(key=made_key(stack, "demo", "admin"))
    page.goto(f"{stack.console_url}workers")
    card = page.locator(".node", has_text="com.github.*").first
    node_id = card.get_attribute("id").removeprefix("n-")
    until(page, lambda: page.evaluate("document.activeElement.id") == f"drain-{node_id}-button")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.locator(f"#n-{node_id} .badge.drained").wait_for(timeout=WAIT_MS)
    until(page, lambda: page.evaluate("document.activeElement.id") == f"undrain-{node_id}-button")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")

    page.locator(f"#n-{node_id} .badge.active").wait_for(timeout=WAIT_MS)
    assert page.said == []


def test_an_event_says_why_it_waits_and_leads_to_where_it_is_mended(
    stack: Stack, open_console: Open, send: Any
) -> None:
    page = open_console(key=made_key(stack, "demo", "admin"))
    page.goto(f"{stack.console_url}workers")
    card = page.locator(".node", has_text="com.github.*").first
    node_id = card.get_attribute("id").removeprefix("n-")
    page.locator(f"#drain-{node_id}-button").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()
    page.locator(f"#n-{node_id} .badge.drained").wait_for(timeout=WAIT_MS)
    event_id = send("user-1")

    page.goto(f"{stack.console_url}events/{event_id}")
    page.get_by_text("every processor that serves it is drained").wait_for(timeout=WAIT_MS)
    page.locator("#waiting").get_by_role("link", name=node_id).click()
    page.wait_for_url(f"**/console/workers#n-{node_id}")
    page.locator(f"#undrain-{node_id}-button").click()
    page.get_by_role("dialog").get_by_role("button", name="Undrain").click()
    page.goto(f"{stack.console_url}events/{event_id}")

    page.locator("#title .badge.processed").wait_for(timeout=WAIT_MS)
    assert page.locator("#waiting").inner_text() == ""
    assert page.said == []


def test_a_key_is_made_shown_once_rotated_and_revoked(stack: Stack, open_console: Open, tmp_path: Path) -> None:
    page = open_console(key=made_key(stack, "demo", "admin"), bypass_csp=True)
    page.goto(f"{stack.console_url}keys")
    page.get_by_role("link", name="Make a key").click()
    page.get_by_label("Name").fill(HOSTILE)
    page.get_by_role("button", name="Make the key").click()
    first = page.locator("#secret").inner_text(timeout=WAIT_MS)
    page.screenshot(path=tmp_path / "made-key.png", full_page=True)
    assert violations(page) == []
    assert first not in page.url

    page.reload()  # the browser sends the form again
    page.get_by_text("That form made this key before").wait_for(timeout=WAIT_MS)
    assert first not in page.content()
    page.get_by_role("button", name="Rotate").click()
    page.get_by_label("This one stays good for").select_option("3600")
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    second = page.locator("#secret").inner_text(timeout=WAIT_MS)
    assert second != first
    page.get_by_role("link", name="Done").click()
    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    page.get_by_text("The key is revoked").wait_for(timeout=WAIT_MS)
    assert page.title() != "taken"
    assert page.said == []


def test_columns_are_chosen_and_a_search_is_kept_by_keyboard_alone(
    stack: Stack, open_console: Open, dead: str, tmp_path: Path
) -> None:
    page = open_console(bypass_csp=True)
    page.goto(f"{stack.console_url}events?state=dead&source=%2Ftest")
    page.get_by_text("Columns", exact=True).press("Enter")
    page.get_by_role("checkbox", name="Subject").press("Space")
    page.get_by_role("checkbox", name="Trace id").press("Space")
    page.get_by_role("button", name="Show these").press("Enter")
    page.get_by_role("columnheader", name="Trace id").wait_for(timeout=WAIT_MS)
    assert page.get_by_role("columnheader", name="Subject").count() == 0
    page.get_by_text("Keep this search", exact=True).press("Enter")
    page.get_by_label("Name").fill("Orders that died")
    page.get_by_label("Name").press("Enter")
    kept = page.get_by_role("navigation", name="Kept searches").get_by_role("link", name="Orders that died")
    kept.wait_for(timeout=WAIT_MS)
    page.get_by_text("Columns", exact=True).press("Enter")
    page.screenshot(path=tmp_path / "kept.png", full_page=True)
    assert violations(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=tmp_path / "kept-phone.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 844})
    page.goto(f"{stack.console_url}events")
    kept.press("Enter")
    page.locator(f"#e-{dead}").wait_for(timeout=WAIT_MS)
    page.get_by_role("button", name="Forget this search").press("Enter")
    page.get_by_text("Keep this search", exact=True).wait_for(timeout=WAIT_MS)
    assert kept.count() == 0
    assert page.said == []


def test_a_processed_event_is_replayed_with_other_data(
    stack: Stack, open_console: Open, client: Client, send: Callable[[str], str], tmp_path: Path
) -> None:
    event_id = send("user-42")
    client.wait(event_id, timeout_seconds=60)
    page = open_console(bypass_csp=True)
    page.goto(f"{stack.console_url}events/{event_id}")
    page.locator("#replay-button").click()
    page.get_by_role("link", name="Other data…").click()
    data = page.get_by_label("Data, as JSON")
    data.fill('{"order_id": 7')
    page.get_by_role("button", name="Replay with this").click()
    page.get_by_role("alert").get_by_text("not JSON").wait_for(timeout=WAIT_MS)
    page.screenshot(path=tmp_path / "edit-fault.png", full_page=True)
    assert violations(page) == []
    assert data.input_value() == '{"order_id": 7'
    data.fill('{"order_id": 7}')
    page.get_by_role("button", name="Replay with this").click()
    page.get_by_text("A new event was recorded").wait_for(timeout=WAIT_MS)
    assert '"order_id": 7' in page.get_by_label("Payload").inner_text()
    assert page.get_by_role("link", name=event_id).count() == 1
    # Chromium tells of each answer beyond 399, as a page that was asked for.
    assert [text for text in page.said if "400" not in text] == []


def test_a_theme_is_chosen_and_stays(stack: Stack, open_console: Open) -> None:
    page = open_console(theme="light")
    before = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.locator(".account-button").click()
    page.get_by_role("button", name="Dark").click()
    page.locator('html[data-theme="dark"]').wait_for(timeout=WAIT_MS)
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != before
    page.goto(f"{stack.console_url}events")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_markup_in_an_event_runs_nowhere(stack: Stack, open_console: Open, dead: str) -> None:
    page = open_console()
    hostile_node(stack, dead)
    made_key(stack, "demo", "events:read", name=HOSTILE)
    for path in (
        f"events/{dead}",
        f"events/{dead}?payload=raw",
        "events",
        "dead-letters",
        "",
        "workers",
        "keys",
        "audit",
    ):
        page.goto(f"{stack.console_url}{path}")
        page.get_by_role("heading", level=1).wait_for(timeout=WAIT_MS)
        assert page.title() != "taken"
        assert page.locator("img[src=x]").count() == 0
    assert page.said == []
    with pytest.raises(Exception, match=r"TrustedHTML|TrustedScript"):
        page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")


def test_a_viewer_sees_no_way_to_act(stack: Stack, open_console: Open, dead: str, viewer_key: str) -> None:
    page = open_console(key=viewer_key)
    page.goto(f"{stack.console_url}events/{dead}")
    page.get_by_role("heading", level=1).wait_for(timeout=WAIT_MS)

    assert page.get_by_role("button", name="Replay").count() == 0
    assert page.get_by_role("button", name="Discard").count() == 0
    assert page.get_by_role("link", name="Replays").count() == 0
    assert page.get_by_role("link", name="Workers").count() == 0
    assert page.get_by_role("link", name="Keys").count() == 0
    assert page.said == []
    for path in ("workers", "keys", "discards"):
        page.goto(f"{stack.console_url}{path}")
        assert page.get_by_role("heading", name="You may not do that").is_visible(), path


def test_on_a_phone_the_menu_shows_where_one_is(stack: Stack, open_console: Open) -> None:
    page = open_console(width=WIDTHS["phone"])
    page.goto(f"{stack.console_url}tenant")

    box = page.get_by_role("link", name="Tenant").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= WIDTHS["phone"]


def test_an_operator_sees_workers_and_no_way_to_drain_them(stack: Stack, open_console: Open) -> None:
    page = open_console(key=made_key(stack, "demo", "events:read", "operate"))
    page.goto(f"{stack.console_url}workers")
    page.locator(".node").first.wait_for(timeout=WAIT_MS)

    assert page.get_by_role("button", name="Drain").count() == 0
    assert page.said == []


def test_without_script_everything_can_be_done(stack: Stack, open_console: Open, dead: str) -> None:
    page = open_console(script=False)
    page.goto(f"{stack.console_url}events/{dead}")
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()

    page.get_by_text("The event is discarded").wait_for(timeout=WAIT_MS)
    assert not page.locator("[data-live-switch]").is_visible()
