"""What a browser keeps: columns of the list of events, searches with names; and the link to where traces are shown."""

import html
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from holdfast.ingest.console.preferences import (
    COLUMNS,
    MAX_COOKIE_CHARACTERS,
    MAX_SEARCHES,
    STANDARD_COLUMNS,
    Search,
    columns_in,
    columns_text,
    searches_in,
    searches_text,
    with_search,
)

Put = Callable[..., str]

EVENTS = "/console/events"


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {
        "HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough",
        "HOLDFAST_TRACE_URL": "https://traces.example.com/trace/{trace_id}?from=holdfast",
    }


def heads(page: str) -> list[str]:
    return re.findall(r'<th scope="col" ?[^>]*>([^<]*)</th>', page)


def kept(page: httpx.Response) -> dict[str, str]:
    """Names of the searches on a page, and where they lead."""
    assert page.status_code == 200, page.text
    found = re.findall(r'<a class="chip kept" href="([^"]+)"[^>]*><svg.*?</svg>([^<]*)</a>', page.text)
    return {html.unescape(name): html.unescape(address) for address, name in found}


def test_a_browser_keeps_which_columns_the_list_has(viewer: Any, visitor: Any, put: Put) -> None:
    trace_id = uuid4().hex
    put("dead", error="KeyError", subject="customer-1", traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    assert heads(viewer.get(EVENTS).text) == ["State", "Event", "Subject", "Attempts", "Received"]

    answer = viewer.send("/console/columns", {"column": ["received", "error", "trace_id", "nonsense"], "next": EVENTS})

    assert (answer.status_code, answer.headers["location"]) == (303, EVENTS)
    assert "httponly" in answer.headers["set-cookie"].lower()
    page = viewer.get(EVENTS).text
    assert heads(page) == ["State", "Event", "Error", "Trace id", "Received"]
    assert f">{trace_id}<" in page
    assert re.search(r"<td[^>]*>KeyError</td>", page)
    assert heads(visitor("events:read").get(EVENTS).text)[2] == "Subject", "another browser"
    viewer.send("/console/columns", {"next": EVENTS})
    assert heads(viewer.get(EVENTS).text) == ["State", "Event"]


def test_a_browser_keeps_searches_by_name_until_they_are_forgotten(viewer: Any, put: Put) -> None:
    put("dead", type="shop.kept")
    query = "?error_type=Key%C3%84rger&type=shop.kept&state=dead&cursor=x&limit=1&notice=ended"

    answer = viewer.send("/console/searches", {"name": " Orders <b> that  died ", "query": query})

    address = f"{EVENTS}?state=dead&type=shop.kept&error_type=Key%C3%84rger"
    assert (answer.status_code, answer.headers["location"]) == (303, address)
    assert kept(viewer.get(EVENTS)) == {"Orders <b> that died": address}
    assert "Forget this search" not in viewer.get(EVENTS).text
    page = viewer.get(f"{EVENTS}?error_type=Key%C3%84rger&state=dead&type=shop.kept").text
    assert 'aria-current="true"><svg' in page
    assert "Keep this search" not in page
    forgotten = viewer.send("/console/searches/forget", {"name": "Orders <b> that died", "next": address})
    assert (forgotten.status_code, forgotten.headers["location"]) == (303, address)
    assert kept(viewer.get(address)) == {}
    assert "Keep this search" in viewer.get(address).text


def test_a_search_that_cannot_be_kept_says_why(viewer: Any, put: Put) -> None:
    def keep(name: str, query: str) -> tuple[int, str]:
        answer = viewer.send("/console/searches", {"name": name, "query": query})
        return answer.status_code, answer.text

    put()  # without any event the list has no room for searches: it says how to send the first one
    for name in ("", "  ", "x" * 41):
        assert keep(name, "type=a")[0] == 400
        assert "up to 40 characters" in keep(name, "type=a")[1]
    status, page = keep("late", "received_after=yesterday")
    assert (status, "received_after: " in page) == (400, True)
    for number in range(MAX_SEARCHES):
        assert keep(f"{number:02}", f"type=shop.{number}")[0] == 303
    status, page = keep("one more", "type=a")
    assert (status, f"up to {MAX_SEARCHES} searches" in page) == (409, True)
    assert keep("00", "type=changed")[0] == 303, "the same name takes no more room"
    assert kept(viewer.get(EVENTS))["00"] == f"{EVENTS}?type=changed"
    assert keep("00", f"subject={'x' * 1000}")[0] == 303
    assert keep("01", f"subject={'x' * 1000}")[0] == 303
    assert keep("02", f"subject={'x' * 1000}")[0] == 409


@pytest.mark.parametrize("cookie", ["%%%", "W10", "bm8=", "eyJhIjoxfQ==", "WzFd", "W1sieCIsIDFdXQ==", "W" * 4000])
def test_searches_that_nobody_understands_are_none(cookie: str) -> None:
    assert searches_in(cookie) == []


def test_searches_come_back_as_they_were_kept() -> None:
    both = with_search([Search("b", "type=b")], Search("ä “q”", "type=%C3%A4"))

    assert [each.name for each in both] == ["b", "ä “q”"]
    text = searches_text(both)
    assert text is not None
    assert searches_in(text) == both
    assert searches_text([Search("x", "y" * MAX_COOKIE_CHARACTERS)]) is None


def test_columns_have_an_order_of_their_own() -> None:
    assert columns_in(None) == STANDARD_COLUMNS
    assert columns_in("") == ()
    assert columns_in("received.subject.<b>") == ("subject", "received")
    assert columns_text(["received", "nobody", "subject"]) == "subject.received"
    assert columns_in(columns_text(COLUMNS)) == tuple(COLUMNS)


def test_an_event_leads_to_where_its_trace_is_shown(viewer: Any, put: Put) -> None:
    trace_id = uuid4().hex
    event_id = put(traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")

    page = viewer.get(f"{EVENTS}/{event_id}").text

    assert f'href="https://traces.example.com/trace/{trace_id}?from=holdfast" rel="noreferrer"' in page
    untraced = viewer.get(f"{EVENTS}/{put()}")
    assert (untraced.status_code, "traces.example.com" in untraced.text) == (200, False)
