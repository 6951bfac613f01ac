"""The console's pages of what happened: charts, handlers, the audit log and keys."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.storage.counting import count_page


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


@pytest.fixture
def count(ingest: Any) -> Callable[[], None]:
    """Bring the counters up to date, as maintenance does."""

    def up_to_date() -> None:
        for _ in range(3):  # the cursor's two snapshots, and what came between
            while ingest.database.call(count_page, limit=10_000):
                pass

    return up_to_date


def rows(page: str) -> list[str]:
    """What each row of the page's tables says."""
    found = re.findall(r"<tr[ >].*?</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in found]


def test_handlers_show_how_often_they_ran_and_failed(
    operator: Any, put: Callable[..., str], count: Callable[[], None]
) -> None:
    put("dead")
    count()

    [row] = [each for each in rows(operator.get("/console/handlers").text) if each.startswith("h ")]

    assert re.search(r"attempts a minute 0 0 [1-9]", row), row
    for window in ("day", "quarter", "never"):
        assert "h " in " ".join(rows(operator.get(f"/console/handlers?window={window}").text))


def test_the_overview_draws_what_happened(viewer: Any, put: Callable[..., str], count: Callable[[], None]) -> None:
    put("dead")
    count()

    page = viewer.get("/console/").text

    assert re.search(r'aria-label="Accepted and processed\. Accepted: [1-9]', page)
    assert re.search(r'aria-label="Failed and dead\. Failed: \d+ attempts.*?Dead: [1-9]', page)
    assert page.count("<polyline") == 4
    assert len(re.findall(r"<tr><td>\d\d:\d\d</td>", page)) == 2 * 60, "minutes of an hour, twice"
    assert len(re.findall(r"<tr><td>\d\d:\d\d</td>", viewer.get("/console/?window=day").text)) == 2 * 144


def test_the_audit_log_says_who_did_what_from_where(visitor: Callable[..., Any], put: Callable[..., str]) -> None:
    operator, event_id = visitor("events:read", "operate"), put("dead")
    there = f"/console/events/{event_id}"
    operator.send(f"{there}/replay", {"request": operator.request_key(there)})

    page = operator.get(f"/console/audit?event_id={event_id}").text

    [row] = [each for each in rows(page) if event_id in each]
    assert row.startswith("replay ")
    assert "127.0.0.1" in row
    assert operator.get("/console/audit?action=never").text.count("Nothing matches") == 1
    assert visitor("events:read").get("/console/audit").status_code == 403


@pytest.mark.parametrize("query", ["cursor=x", "cursor=0", f"cursor={10**30}", "event_id=7", "replay_id=7"])
def test_an_address_that_cannot_be_is_told_so(operator: Any, query: str) -> None:
    answer = operator.get(f"/console/audit?{query}")

    assert answer.status_code == 400
    assert "<h1" in answer.text


def test_keys_are_shown_to_administrators_without_their_secrets(visitor: Callable[..., Any], ingest: Any) -> None:
    key = ingest.key("events:write")
    _, key_id, secret = key.split("_", 2)

    page = visitor("admin").get("/console/keys").text

    [row] = [each for each in rows(page) if key_id in each]
    assert "Active events:write never never" in row
    assert secret not in page
    assert visitor("events:read", "operate").get("/console/keys").status_code == 403
    assert visitor("admin").get("/console/keys?cursor=X").status_code == 400


def test_the_menu_has_what_the_visitor_may_see(visitor: Callable[..., Any]) -> None:
    def menu(*scopes: str) -> list[str]:
        page = visitor(*scopes).get("/console/handlers").text
        return [" ".join(each.split()) for each in re.findall(r"</svg>([^<]+)</a>", page.partition("</nav>")[0])]

    common = ["Overview", "Events", "Dead letters", "Handlers"]
    assert menu("events:read") == [*common, "Tenant"]
    assert menu("events:read", "operate") == [
        *common,
        "Schedules",
        "Workers",
        "Replays",
        "Audit",
        "Retention",
        "Tenant",
    ]
    assert menu("admin") == [*common, "Schedules", "Workers", "Replays", "Audit", "Retention", "Keys", "Tenant"]
