"""The console's pages: what they show to whom, and what every answer carries."""

import html
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.contract.console import text_of

from holdfast.ingest.console.assets import ASSETS
from holdfast.ingest.console.pages.signing import local_address
from holdfast.ingest.console.room import content_security_policy
from holdfast.local.servers import Postgres, Valkey

NOBODY = "0198c0de-0000-7000-8000-000000000000"
PRETTY = r"""{
  "price": 19.990000000000000000001,
  "none": {},
  "many": [
    1,
    2
  ],
  "twice": "a\u0041"
}"""
LIVE = "wss://live.example.com"
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": "a secret of the console's tests, long enough"}


def test_every_answer_lets_nothing_in_and_is_not_kept(operator: Any, put: Callable[..., str]) -> None:
    event_id = put("dead")
    paths = ["", "/", "/sign-in", "/events", "/dead-letters", "/replays", "/replays/new", f"/events/{event_id}", "/nowhere",
             "/handlers", "/audit", "/workers", "/tenant", "/discards", "/discards/new",
             "/events?limit=0", f"/events/{event_id}/payload", "/find?q=x"]  # fmt: skip

    for path in paths:
        answer = operator.get(f"/console{path}")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "unsafe" not in policy


def test_the_policy_names_the_gateway_and_nobody_else() -> None:
    assert f"connect-src 'self' {LIVE};" in content_security_policy(f"{LIVE}/v1/live")
    assert "connect-src 'self';" in content_security_policy(None)
    assert "evil" not in content_security_policy("javascript:evil")


def test_no_page_has_style_or_script_of_its_own(operator: Any, put: Callable[..., str]) -> None:
    event_id = put("dead")

    for path in (
        "/",
        "/events",
        f"/events/{event_id}",
        "/dead-letters",
        "/replays",
        "/replays/new",
        "/handlers",
        "/audit",
        "/workers",
        "/tenant",
        "/discards",
        "/discards/new",
    ):
        page = operator.get(f"/console{path}").text
        assert (
            re.search(r"\sstyle=|\son\w+=|<style|<script(?! type=\"module\" src=\"/console/assets/)", page) is None
        ), path


def test_files_are_kept_for_good_under_an_address_with_their_digest(operator: Any) -> None:
    [style] = re.findall(r'href="(/console/assets/\w+/console\.css)"', operator.get("/console/").text)

    answer = operator.get(style)

    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"].startswith("text/css")
    assert operator.get(style.replace(ASSETS.digest, "0" * 16)).headers["cache-control"] == "no-store"
    assert operator.get(f"/console/assets/{ASSETS.digest}/base.html").status_code == 404


def test_a_tenant_without_events_is_shown_a_command_that_works(ingest: Any, visitor: Callable[..., Any]) -> None:
    page = visitor("events:read", tenant="newcomer").get("/console/").text
    [command] = re.findall(r'<pre class="code wrap" id="curl"[^>]*>(.*?)</pre>', page, re.DOTALL)
    shell = {"PATH": os.environ["PATH"], "KEY": ingest.key(tenant="newcomer")}

    done = subprocess.run(
        ["sh", "-c", html.unescape(command)], env=shell, capture_output=True, text=True, check=True, timeout=20
    )

    assert done.stdout.startswith("HTTP/1.1 202")
    assert "com.example.hello" in visitor("events:read", tenant="newcomer").get("/console/events").text


def test_the_overview_has_what_is_open_what_died_and_what_is_new(viewer: Any, put: Callable[..., str]) -> None:
    put("queued", type="test.waiting")
    put("dead", type="test.dying", error="BrokenPipeError")

    seen = text_of(viewer.get("/console/"))

    assert re.search(r"Queued [1-9]\d* wait to be run", seen)
    assert "BrokenPipeError" in seen
    assert "test.waiting" in seen


def test_the_overview_counts_the_tenants_own_events_alone(
    visitor: Callable[..., Any], ingest: Any, post_to: Any, put: Callable[..., str]
) -> None:
    put("queued")
    post_to(ingest, ingest.key(tenant="frugal"))

    seen = text_of(visitor("events:read", tenant="frugal").get("/console/"))

    assert "Queued 1 wait" in seen
    assert "BrokenPipeError" not in seen


def test_the_list_is_filtered_by_its_address(viewer: Any, put: Callable[..., str]) -> None:
    dead, queued = put("dead", type="filter.a", subject="s 1&2"), put("queued", type="filter.b")

    assert dead in viewer.get("/console/events?state=dead").text
    assert queued not in viewer.get("/console/events?state=dead").text
    assert dead in viewer.http.get("/console/events", params={"subject": "s 1&2", "type": "filter.a"}).text
    assert "No events match" in viewer.get("/console/events?type=nothing.like.it").text


def test_empty_fields_of_the_form_are_no_filters_and_leave_the_address(viewer: Any) -> None:
    answer = viewer.get("/console/events?type=a&source=&subject=&state=dead")

    assert (answer.status_code, answer.headers["location"]) == (303, "/console/events?type=a&state=dead")


@pytest.mark.parametrize(
    ("query", "said"),
    [("received_after=yesterday", "received_after"), ("state=gone", "state"), ("limit=1000", "limit"),
     ("cursor=1", "cursor"), ("colour=red", "colour"), (f"type={'x' * 2000}", "type")],
)  # fmt: skip
def test_a_filter_that_cannot_be_is_named_beside_the_form(viewer: Any, query: str, said: str) -> None:
    answer = viewer.get(f"/console/events?{query}")

    assert answer.status_code == 400
    assert f"<li>{said}" in answer.text


def test_pages_follow_each_other_without_gap_or_repetition(viewer: Any, put: Callable[..., str]) -> None:
    sent = [put("queued", type="paged") for _ in range(5)]

    seen: list[str] = []
    address = "/console/events?type=paged&limit=2"
    while address:
        page = viewer.get(address).text
        seen += re.findall(r'<tr id="e-([0-9a-f-]+)"', page)
        older = re.search(r'href="(\?[^"]*cursor=[^"]*)" rel="next"', page)
        address = f"/console/events{html.unescape(older[1])}" if older else ""

    assert seen == sent[::-1]


def test_an_event_is_found_by_either_of_its_ids(viewer: Any, put: Callable[..., str]) -> None:
    event_id = put("queued", id="order 7/8")

    assert viewer.get(f"/console/find?q={event_id}").headers["location"] == f"/console/events/{event_id}"
    by_id = viewer.http.get("/console/find", params={"q": "order 7/8"}).headers["location"]
    assert event_id in viewer.get(by_id).text


def test_an_event_shows_its_envelope_timeline_and_attempts(operator: Any, put: Callable[..., str]) -> None:
    event_id = put("dead", type="shown", subject="customer-1", error="ZeroDivisionError", comexampleteam="billing")

    seen = text_of(operator.get(f"/console/events/{event_id}"))

    for text in ("shown", "customer-1", "comexampleteam billing", "ZeroDivisionError", "no such key", "Traceback …",
                 "Queued", "Processing", "Dead", "on w-1"):  # fmt: skip
        assert text in seen


def test_a_viewer_sees_no_text_of_an_error_and_no_way_to_act(viewer: Any, put: Callable[..., str]) -> None:
    event_id = put("dead", error="KeyError", reason=None)

    for path in (f"/console/events/{event_id}", "/console/dead-letters", "/console/"):
        page = viewer.get(path).text
        assert "no such key" not in page
        assert "Traceback …" not in page
        assert 'method="post"' not in page.replace("/console/theme", "").partition("<main")[2]
    assert "/console/replays" not in viewer.get("/console/").text


@pytest.mark.parametrize(
    "path",
    [
        "/events/{id}/replay",
        "/events/{id}/discard",
        "/events/{id}/cancel",
        "/replays",
        "/replays/{id}/cancel",
        "/discards",
        "/discards/{id}/cancel",
    ],
)
def test_a_viewer_cannot_act(viewer: Any, put: Callable[..., str], path: str) -> None:
    event_id = put("dead")

    answer = viewer.send(f"/console{path.format(id=event_id)}", {"request": "a-key-of-mine", "rate_per_s": "1"})

    assert answer.status_code == 403
    assert "operator" in answer.text


@pytest.mark.parametrize(
    "path",
    ["/replays", "/replays/new", f"/replays/{NOBODY}", "/discards", "/discards/new", f"/discards/{NOBODY}", "/workers"],
)
def test_a_viewer_does_not_see_what_operators_do(viewer: Any, path: str) -> None:
    assert viewer.get(f"/console{path}").status_code == 403


@pytest.mark.parametrize("path", ["/events/{id}", "/events/{id}/payload"])
def test_another_tenants_event_is_not_there(visitor: Callable[..., Any], put: Callable[..., str], path: str) -> None:
    stranger = visitor("admin", tenant="stranger")

    answer = stranger.get(f"/console{path.format(id=put('dead'))}")

    assert answer.status_code == 404
    assert "no such event" in answer.text


@pytest.mark.parametrize("verb", ["replay", "discard", "cancel"])
def test_another_tenants_event_cannot_be_acted_on(
    visitor: Callable[..., Any], api: Any, put: Callable[..., str], verb: str
) -> None:
    event_id = put("dead")

    answer = visitor("admin", tenant="stranger").send(f"/console/events/{event_id}/{verb}", {"request": "a-key"})

    assert answer.status_code == 404
    assert api("GET", f"/v1/events/{event_id}").json()["state"] == "dead"


@pytest.mark.parametrize(
    "path", ["/events/nonsense", f"/events/{NOBODY}", "/replays/x", "/discards/x", f"/discards/{NOBODY}", "/nowhere"]
)
def test_what_is_not_there_is_a_page_that_says_so(operator: Any, path: str) -> None:
    answer = operator.get(f"/console{path}")

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["x-request-id"] in answer.text


def test_a_payload_full_of_markup_is_text(operator: Any, put: Callable[..., str]) -> None:
    event_id = put("dead", type=f"hostile{HOSTILE}", subject=HOSTILE, data={"note": HOSTILE, HOSTILE: 1}, error=HOSTILE,
                   reason=HOSTILE)  # fmt: skip

    for path in (f"/events/{event_id}", f"/events/{event_id}?payload=raw", "/events", "/", "/dead-letters",
                 "/replays/new?error_type=%3Cscript%3Ealert(1)", f"/events?type={HOSTILE}"):  # fmt: skip
        page = operator.get(f"/console{path}").text
        assert "<script>" not in page, path
        assert "<img src=x" not in page, path
    assert "&lt;script&gt;alert(1)" in operator.get(f"/console/events/{event_id}").text


def test_a_payload_is_shown_with_every_digit_and_as_it_was_sent(operator: Any, post: Any) -> None:
    body = (
        b'{"specversion":"1.0","id":"digits","source":"/test","type":"digits",'
        b'"data":{"price":19.990000000000000000001,"none":{},"many":[1,2],"twice":"a\\u0041"}}'
    )
    event_id = post(body).json()["event_id"]

    pretty = html.unescape(operator.get(f"/console/events/{event_id}").text)
    raw = html.unescape(operator.get(f"/console/events/{event_id}?payload=raw").text)

    assert PRETTY in pretty
    assert '{"price":19.990000000000000000001,"none":{},"many":[1,2],"twice":"a\\u0041"}' in raw
    download = operator.get(f"/console/events/{event_id}/payload")
    assert download.content == b'{"price":19.990000000000000000001,"none":{},"many":[1,2],"twice":"a\\u0041"}'
    assert download.headers["content-disposition"] == f'attachment; filename="{event_id}.json"'
    assert "sandbox" in download.headers["content-security-policy"]


def test_a_live_token_is_for_the_tenant_of_the_session(viewer: Any) -> None:
    answer = viewer.send("/console/live-token", X_CSRF_Token=viewer.token())

    assert answer.json()["topics"] == ["tenant:acme", "event:*"]
    assert answer.json()["live_url"] == "wss://live.example.com/v1/live"


def test_an_address_puts_no_words_into_the_consoles_mouth(viewer: Any) -> None:
    assert "You+have+won" not in viewer.get("/console/?notice=You+have+won").text
    assert "You have won" not in viewer.get("/console/?notice=You+have+won").text


def test_where_the_sign_in_leads() -> None:
    assert local_address("/console/events?state=dead") == "/console/events?state=dead"
    assert local_address(None) == "/console/"


def test_without_its_secret_there_is_no_console(
    start_ingest: Any, postgres: Postgres, valkey: Valkey, ingest: Any
) -> None:
    url = start_ingest(postgres, valkey, database=ingest.database.engine.url.database).url

    assert httpx.get(f"{url}/console/").status_code == 404
    assert httpx.get(f"{url}/console/").headers["content-type"] == "application/problem+json"


def test_with_redis_away_every_page_works_and_events_are_acted_on(
    start_ingest: Any,
    postgres: Postgres,
    valkey: Valkey,
    ingest: Any,
    put: Callable[..., str],
    visitor: Callable[..., Any],
) -> None:
    event_id = put("dead")
    other = start_ingest(
        postgres, valkey, database=ingest.database.engine.url.database, HOLDFAST_BROKER_URL="redis://127.0.0.1:1/0",
        HOLDFAST_REDIS_URL="redis://127.0.0.1:1/1", HOLDFAST_CONSOLE_SECRET="another secret of the console's, long enough",
    )  # fmt: skip
    browser = visitor(url=other.url)
    browser.sign_in(ingest.key("events:read", "operate"))

    for path in (
        "/",
        "/events",
        f"/events/{event_id}",
        "/dead-letters",
        "/replays",
        "/replays/new",
        "/handlers",
        "/audit",
        "/workers",
        "/tenant",
        "/discards/new",
    ):
        assert browser.get(f"/console{path}").status_code == 200, path
    page = f"/console/events/{event_id}"
    answer = browser.send(f"{page}/replay", {"request": browser.request_key(page)})

    assert answer.headers["location"] == f"{page}?notice=replayed"
