"""The console's pages of what is scheduled, limited, paused, kept and erased, and of events that sleep, wait and make others:
in front of the whole stack, by mouse and by keyboard, on a desk and a phone, in both themes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from tests.browser.console import (
    HOSTILE,
    WAIT_MS,
    WIDTHS,
    Open,
    database_of,
    look_at,
    made_key,
    until,
    violations,
    wide,
)
from tests.browser.flow_handlers import LOCK, LONG

from holdfast.client import Client
from holdfast.local.fixtures import Eventually
from holdfast.local.stack import TENANT, Stack
from holdfast.storage import tenants
from holdfast.storage.audit import Actor

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser"), pytest.mark.timeout(400)]

DEADLINE_SECONDS = 60

LONG_TYPE = "com.example." + "without_a_place_to_break" * 9

SCHEDULES: dict[str, dict[str, Any]] = {
    "daily-report": {"cron": "0 7 * * mon-fri", "timezone": "Europe/Istanbul", "type": "com.example.report.due"},
    "paused-one": {"cron": "*/15 * * * *", "type": HOSTILE},
    "a-schedule-whose-name-they-took-all-the-room-for-that-there-is-being-a-hundred-characters-long": {
        "cron": "0,5,10,15,20,25,30,35,40,45,50,55 0,1,2,3,4,5,6,7,8,9,10,11 L jan,feb,mar,apr *", "type": LONG_TYPE,
        "timezone": "America/Argentina/ComodRivadavia",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Flow:
    """Ids of events, each in a state of its own."""

    asleep: str
    parent: str
    running: str
    limited: str
    rated: str
    paused: str
    debounced: str
    superseded: str


@pytest.fixture(scope="module")
def stack(server_folder: Path) -> Iterator[Stack]:
    settings = {"HOLDFAST_HANDLERS": "flow_handlers:handlers", "HOLDFAST_PROCESSOR_PROCESSES": "1"}
    folder = str(Path(__file__).parent)
    with Stack(server_folder / uuid4().hex, settings=settings, python_path=folder) as stack:
        yield stack


@pytest.fixture(scope="module")
def admin_key(stack: Stack) -> str:
    return made_key(stack, TENANT, "events:write", "admin", name="ann")


@pytest.fixture(scope="module")
def operator_key(stack: Stack) -> str:
    return made_key(stack, TENANT, "events:read", "operate", name="bob")


@pytest.fixture(scope="module")
def flow(stack: Stack, admin_key: str, eventually: Eventually) -> Iterator[Flow]:
    """Everything that the pages can show, made by the services themselves; the handler of one event runs meanwhile."""
    with Client(stack.ingest_url, admin_key) as client, psycopg2.connect(stack.database_url) as blocking:
        blocking.cursor().execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        keep_and_erase(stack, client, eventually)
        for name, spec in SCHEDULES.items():
            client.put_schedule(name, spec)
        client.pause_schedule("paused-one")
        client.pause("type", "com.example.page.held", note=HOSTILE)
        client.pause("handler", "index-document", note="the index is built anew until the evening")
        client.pause("type", LONG_TYPE)
        client.pause("pool", "elsewhere")
        yield made_events(client, eventually)
        blocking.rollback()


def keep_and_erase(stack: Stack, client: Client, eventually: Eventually) -> None:
    """A rule for each way to say one, an erasure that is over, one that waits, and a weight."""
    client.put_retention("processed", 30)
    client.put_retention("discarded", None)
    for subject in ("erased", "waits"):
        sent = client.send({"type": "com.example.page.scan", "source": "/test", "subject": subject, "data": {}})
        client.wait(sent.event_id, timeout_seconds=DEADLINE_SECONDS)
    over = client.erase("erased").id
    eventually(lambda: client.erasure(over).waiting == 1)
    # What was written down a minute and a half ago goes: nobody has to wait for that here.
    stack.postgres.execute(
        "UPDATE event_identity SET made_at = made_at - interval '2 minutes';"
        "UPDATE erasure_job SET next_at = now()", database="holdfast",
    )  # fmt: skip
    eventually(lambda: client.erasure(over).state == "done")
    assert client.erasure(over).erased == 1
    client.erase("waits")
    with database_of(stack) as database:
        database.call(tenants.set_tenant, Actor(TENANT, "k", "ann"), weight=7, backlog_seconds=90.0)


def made_events(client: Client, eventually: Eventually) -> Flow:
    def sent(kind: str, **more: Any) -> str:
        return client.send({"type": kind, "source": "/test", "data": {}} | more).event_id

    def waits(event_id: str, reason: str) -> str:
        eventually(lambda: client.get(event_id).raw["waiting"]["reason"] == reason)
        return event_id

    running = waits(sent("com.example.occupied"), "running")
    client.wait(sent("com.example.rare"), timeout_seconds=DEADLINE_SECONDS)
    parent = sent("com.example.document.sent")
    client.wait(parent, timeout_seconds=DEADLINE_SECONDS)
    eventually(lambda: [(each.processed, each.open) for each in client.groups(parent)] == [(2, 2)])
    superseded, debounced = (sent("com.example.stale", debounceseconds=86_400, debouncekey=HOSTILE) for _ in range(2))
    return Flow(
        asleep=waits(sent("com.example.order.placed"), "sleeping"),
        parent=parent,
        running=running,
        limited=waits(sent("com.example.occupied"), "limit"),
        rated=waits(sent("com.example.rare"), "rate"),
        paused=waits(sent("com.example.page.held"), "paused"),
        debounced=waits(debounced, "debounced"),
        superseded=superseded,
    )


def screens(stack: Stack, flow: Flow) -> dict[str, str]:
    """A name for each page, and its address."""
    pages = ("overview", "handlers", "schedules", "retention", "tenant")
    addresses = {name: f"{stack.console_url}{name if name != 'overview' else ''}" for name in pages}
    return addresses | {f"event-{name}": f"{stack.console_url}events/{each}" for name, each in vars(flow).items()}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_screen_is_free_of_errors_and_within_its_width_and_axe_finds_nothing(
    stack: Stack, flow: Flow, admin_key: str, open_console: Open, tmp_path: Path, width: str, theme: str
) -> None:
    page = open_console(width=WIDTHS[width], theme=theme, key=admin_key, bypass_csp=True)

    found = look_at(page, screens(stack, flow), width=width, theme=theme, folder=tmp_path)

    assert not found, "\n".join(found)
    assert page.said == []
    assert page.title() != "taken"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_in_what_opens_and_where_there_is_nothing_yet(
    stack: Stack, flow: Flow, admin_key: str, open_console: Open, tmp_path: Path, width: str, theme: str
) -> None:
    empty = made_key(stack, f"new-{uuid4().hex}", "admin")
    page = open_console(width=WIDTHS[width], theme=theme, key=empty, bypass_csp=True)
    nothing = {f"no-{name}": f"{stack.console_url}{name}" for name in ("handlers", "schedules", "retention", "tenant")}
    assert look_at(page, nothing, width=width, theme=theme, folder=tmp_path) == []

    page = open_console(width=WIDTHS[width], theme=theme, key=admin_key, bypass_csp=True)
    opening = {
        "handlers": ("Pause…", f"Pause… {LONG}"),
        "retention": ("Change… processed events",),
        "schedules": ("Run… daily-report", f"Delete… {max(SCHEDULES, key=len)}"),
        f"events/{flow.running}": ("Cancel",),
    }
    for path, buttons in opening.items():
        page.goto(f"{stack.console_url}{path}")
        for number, name in enumerate(buttons):
            page.get_by_role("button", name=name, exact=True).click()
            dialog = page.get_by_role("dialog")
            dialog.wait_for(timeout=WAIT_MS)
            page.screenshot(path=tmp_path / f"{path.partition('/')[0]}-{number}-{width}-{theme}.png")
            assert violations(page) == [], (path, name)
            assert wide(page, [WIDTHS[width]], name) == []
            box = dialog.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= WIDTHS[width]
            page.keyboard.press("Escape")
    assert page.said == []


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("asleep", "Steps", ("charge", "cool off", HOSTILE)),
        ("parent", "Groups", ("2 of 4 ended", "com.example.document.scanned")),
        ("running", "It runs now", ("occupy",)),
        ("limited", "Why it waits", ("occupy",)),
        ("rated", "Why it waits", (LONG,)),
        ("paused", "Why it waits", (HOSTILE, "ann")),
        ("superseded", "Timeline", ("a later event of its key took its place",)),
    ],
)
def test_an_event_says_why_it_waits_and_what_it_has_done(
    stack: Stack, flow: Flow, operator_key: str, open_console: Open, name: str, reason: str, words: tuple[str, ...]
) -> None:
    page = open_console(key=operator_key)
    page.goto(f"{stack.console_url}events/{getattr(flow, name)}")

    card = page.locator(".card", has=page.get_by_role("heading", name=reason))
    for each in words:
        assert card.get_by_text(each).first.is_visible(), each
    assert page.title() != "taken"
    assert page.locator("img[src=x]").count() == 0
    assert page.said == []


@pytest.mark.usefixtures("flow")
def test_a_handler_is_paused_and_resumed_by_keyboard_alone(stack: Stack, admin_key: str, open_console: Open) -> None:
    page = open_console(key=admin_key)
    page.goto(f"{stack.console_url}handlers")
    row = page.locator("#declared tr", has_text="scan-document")
    to_button(page, "Pause… scan-document")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.name") == "note", "what is asked for has the focus"
    page.keyboard.type(HOSTILE)
    page.keyboard.press("Enter")
    said(page, "Nothing more of it is begun")
    assert row.locator(".badge.drained").is_visible()
    assert row.get_by_text(HOSTILE).is_visible()

    to_button(page, "Resume handler scan-document")
    page.keyboard.press("Enter")
    said(page, "It goes on within a second or two")
    assert row.locator(".badge.drained").count() == 0
    assert page.title() != "taken"
    assert page.said == []


def said(page: Any, text: str) -> None:
    page.get_by_role("status").get_by_text(text).wait_for(timeout=WAIT_MS)


def to_button(page: Any, name: str) -> None:
    until(page, lambda: page.evaluate("document.activeElement.textContent").strip() == name)


@pytest.mark.usefixtures("flow")
def test_a_schedule_is_paused_resumed_run_and_deleted_by_keyboard_alone(
    stack: Stack, operator_key: str, open_console: Open
) -> None:
    with Client(stack.ingest_url, operator_key) as client:
        client.put_schedule("at-night", {"cron": "0 3 * * *", "type": "com.example.page.scan"})
    page = open_console(key=operator_key)
    page.goto(f"{stack.console_url}schedules")
    row = page.locator("#s-at-night")
    for verb, badge in (("Pause", "drained"), ("Resume", "active")):
        to_button(page, f"{verb} at-night")
        page.keyboard.press("Enter")
        row.locator(f".badge.{badge}").wait_for(timeout=WAIT_MS)
    to_button(page, "Run… at-night")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    said(page, "The schedule's event was recorded")
    page.locator("#title .badge.processed").wait_for(timeout=WAIT_MS)

    page.goto(f"{stack.console_url}schedules")
    to_button(page, "Delete… at-night")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert row.is_visible()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    said(page, "The schedule is deleted")
    assert row.count() == 0
    assert page.said == []


@pytest.mark.usefixtures("flow")
def test_a_rule_is_changed_by_keyboard_alone(stack: Stack, admin_key: str, open_console: Open) -> None:
    page = open_console(key=admin_key)
    page.goto(f"{stack.console_url}retention")
    rule = page.locator("#retention tr", has_text="Dead").locator('[data-label="Rule"]')
    to_button(page, "Change… dead events")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.name") == "days"
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("365")
    page.keyboard.press("Enter")
    said(page, "The rule is changed")
    assert rule.get_by_text("365 days").is_visible()

    to_button(page, "Change… dead events")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowUp")  # from the first choice to the last
    page.keyboard.press("Enter")
    said(page, "The rule is changed")
    assert rule.inner_text() == "none"
    assert page.said == []


def test_a_viewer_and_an_operator_see_no_way_to_do_what_they_may_not(
    stack: Stack, flow: Flow, operator_key: str, open_console: Open
) -> None:
    page = open_console(key=made_key(stack, TENANT, "events:read"))
    for path in ("handlers", f"events/{flow.running}", f"events/{flow.asleep}"):
        page.goto(f"{stack.console_url}{path}")
        assert page.get_by_role("heading", level=1).is_visible()
        for verb in ("Pause", "Resume", "Cancel", "Discard"):
            assert page.get_by_role("button", name=verb).count() == 0, (path, verb)
    assert page.get_by_text("receipt").count() == 0, "results are for operators"
    assert page.said == []
    for path in ("schedules", "retention"):
        assert page.get_by_role("link", name=path.capitalize()).count() == 0
        page.goto(f"{stack.console_url}{path}")
        assert page.get_by_role("heading", name="You may not do that").is_visible(), path

    page = open_console(key=operator_key)
    page.goto(f"{stack.console_url}handlers")
    assert page.locator("#declared").get_by_role("button").count() == 0
    assert page.locator("#pauses tbody").get_by_role("button").count() == 2, "of the two types"
    page.goto(f"{stack.console_url}retention")
    assert page.locator("#retention").get_by_role("button").count() == 0
    assert page.said == []


def test_pages_show_and_act_without_redis(stack: Stack, flow: Flow, operator_key: str, open_console: Open) -> None:
    page = open_console(key=operator_key)
    stack.redis.stop()
    try:
        for address in screens(stack, flow).values():
            assert page.goto(address).status == 200, address
        page.goto(f"{stack.console_url}schedules")
        page.get_by_role("button", name="Pause daily-report").click()
        said(page, "The schedule rests")
        page.get_by_role("button", name="Resume daily-report").click()
        said(page, "The schedule goes on")
        page.goto(f"{stack.console_url}handlers")
        page.get_by_role("button", name="Resume type com.example.page.held").click()
        said(page, "It goes on")
        page.get_by_role("button", name="Pause…", exact=True).click()
        page.get_by_label("What").select_option("type")
        page.get_by_label("Its name").fill("com.example.page.held")
        page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
        said(page, "Nothing more of it is begun")
    finally:
        stack.redis.start()


@pytest.mark.usefixtures("flow")
def test_without_script_everything_can_be_done(stack: Stack, admin_key: str, open_console: Open) -> None:
    page = open_console(key=admin_key, script=False)
    page.goto(f"{stack.console_url}handlers")
    page.get_by_role("button", name="Pause… fulfil-order").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
    said(page, "Nothing more of it is begun")
    page.get_by_role("button", name="Resume handler fulfil-order").first.click()
    said(page, "It goes on")

    page.goto(f"{stack.console_url}schedules")
    page.get_by_role("button", name="Run… daily-report").click()
    page.get_by_role("dialog").get_by_role("button", name="Run").click()
    said(page, "The schedule's event was recorded")
