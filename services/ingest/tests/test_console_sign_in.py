"""The console's door: who gets in, what the session is worth, and what a form must bring."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.domain.errors import ConfigurationError
from holdfast.ingest.console.throttle import MOST_FAILURES, WINDOW_SECONDS, Throttle
from holdfast.local.servers import Postgres, Valkey
from holdfast.runtime.settings import IngestSettings, load

CONSOLE_SECRET = "a secret of the console's tests, long enough"

PAGES = ("/console/", "/console/events", "/console/dead-letters", "/console/replays", "/console/replays/new")


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    return {"HOLDFAST_CONSOLE_SECRET": CONSOLE_SECRET}


def cookie(answer: Any) -> str:
    return str(next(each for each in answer.headers.get_list("set-cookie") if each.startswith("holdfast_console=")))


def audited(ingest: Any) -> list[str]:
    with ingest.database.transaction() as session:
        rows = session.connection().exec_driver_sql(
            "SELECT actor, origin, detail FROM audit_log WHERE action = 'sign_in'"
        )
        return [f"{row.actor} {row.origin} {row.detail}" for row in rows]


def test_a_key_signs_in_and_the_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(
    ingest: Any, visitor: Callable[..., Any]
) -> None:
    browser, key = visitor(), ingest.key("events:read")

    answer = browser.sign_in(key)

    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    assert {"HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=28800"} <= set(cookie(answer).split("; "))
    assert "Secure" not in cookie(answer)
    assert browser.get("/console/").status_code == 200
    assert key.rpartition("_")[2] not in cookie(answer), "the secret is nowhere in it"
    [row] = [row for row in audited(ingest) if key.split("_")[1] in row]
    assert row.endswith(" 127.0.0.1 {'role': 'viewer'}")


def test_behind_a_proxy_that_ends_tls_the_cookie_is_secure(ingest: Any, visitor: Callable[..., Any]) -> None:
    answer = visitor().send(
        "/console/sign-in", {"key": ingest.key("events:read")}, page="/console/sign-in",
        Origin="https://events.example.com", X_Forwarded_Host="events.example.com", X_Forwarded_Proto="https",
    )  # fmt: skip

    assert answer.status_code == 303
    assert "Secure" in cookie(answer).split("; ")


@pytest.mark.parametrize("path", [*PAGES, "/console/events/0198c0de-0000-7000-8000-000000000000"])
def test_without_a_session_every_page_leads_to_the_sign_in_and_back(visitor: Callable[..., Any], path: str) -> None:
    answer = visitor().get(path)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/console/sign-in")
    if path != "/console/":
        assert answer.headers["location"].endswith(path.replace("/", "%2F"))


def test_after_the_sign_in_the_page_that_was_asked_for_comes(ingest: Any, visitor: Callable[..., Any]) -> None:
    answer = visitor().sign_in(ingest.key("events:read"), next="/console/events?state=dead")

    assert answer.headers["location"] == "/console/events?state=dead"


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/console//evil.example", "/console/\r\nSet-Cookie: a=b",
     "/v1/events", "javascript:alert(1)", "/console/sign-out", ""],
)  # fmt: skip
def test_nobody_is_led_elsewhere_by_the_sign_in(ingest: Any, visitor: Callable[..., Any], elsewhere: str) -> None:
    answer = visitor().sign_in(ingest.key("events:read"), next=elsewhere)

    assert answer.headers["location"] == "/console/"
    assert "a=b" not in str(answer.headers)


@pytest.mark.parametrize("wrong", ["", "hf_nobody", "hf_aaaaaaaaaaaa_" + "A" * 43, "x" * 5000])
def test_what_is_no_key_does_not_sign_in_and_is_not_repeated(
    ingest: Any, visitor: Callable[..., Any], wrong: str
) -> None:
    answer = visitor().sign_in(wrong)

    assert answer.status_code == 401
    assert "no active key" in answer.text
    assert wrong == "" or wrong not in answer.text
    assert not wrong or wrong not in ingest.log.read_text()


def test_a_key_that_may_not_read_events_does_not_sign_in(ingest: Any, visitor: Callable[..., Any]) -> None:
    answer = visitor().sign_in(ingest.key("events:write", "operate"))

    assert answer.status_code == 403
    assert "events:read" in answer.text


def test_a_revoked_key_ends_its_sessions(ingest: Any, visitor: Callable[..., Any], eventually: Any) -> None:
    browser, key = visitor(), ingest.key("events:read")
    browser.sign_in(key)
    assert browser.get("/console/events").status_code == 200

    ingest.revoke(key)

    eventually(lambda: browser.get("/console/events").status_code == 303)
    assert "notice=ended" in browser.get("/console/events").headers["location"]


def test_an_expired_key_ends_its_sessions(ingest: Any, visitor: Callable[..., Any], eventually: Any) -> None:
    browser, key = visitor(), ingest.key("events:read")
    browser.sign_in(key)

    with ingest.database.transaction() as session:
        session.connection().exec_driver_sql(
            "UPDATE api_key SET expires_at = now() - interval '1 s' WHERE id = %s", (key.split("_")[1],)
        )

    eventually(lambda: browser.get("/console/events").status_code == 303)


def test_a_secret_that_was_replaced_ends_the_sessions_of_the_old_one(
    ingest: Any, visitor: Callable[..., Any], eventually: Any
) -> None:
    browser, key = visitor(), ingest.key("events:read")
    browser.sign_in(key)

    with ingest.database.transaction() as session:
        session.connection().exec_driver_sql(
            "UPDATE api_key SET secret_hash = sha256('another') WHERE id = %s", (key.split("_")[1],)
        )

    eventually(lambda: browser.get("/console/events").status_code == 303)


def test_a_cookie_that_was_changed_is_none(viewer: Any) -> None:
    sealed = viewer.http.cookies["holdfast_console"]
    viewer.http.cookies.clear()
    viewer.http.cookies.set("holdfast_console", sealed[:-2] + ("AA" if sealed[-2:] != "AA" else "BB"), path="/console")

    assert viewer.get("/console/events").status_code == 303


def test_signing_out_takes_the_cookie_away(viewer: Any) -> None:
    answer = viewer.send("/console/sign-out")

    assert "Max-Age=0" in cookie(answer)
    assert viewer.get("/console/events").status_code == 303


def test_a_get_signs_nobody_out(viewer: Any) -> None:
    assert viewer.get("/console/sign-out").status_code == 404
    assert viewer.get("/console/events").status_code == 200


FORMS = ("/console/sign-out", "/console/theme", "/console/live-token", "/console/replays",
         "/console/events/0198c0de-0000-7000-8000-000000000000/replay",
         "/console/events/0198c0de-0000-7000-8000-000000000000/discard",
         "/console/replays/0198c0de-0000-7000-8000-000000000000/cancel", "/console/nowhere")  # fmt: skip


@pytest.mark.parametrize("path", FORMS)
def test_a_form_without_the_sessions_token_is_refused(visitor: Callable[..., Any], path: str) -> None:
    browser, other = visitor("admin"), visitor("admin")

    for token in ("", "wrong", other.token()):
        assert browser.send(path, {"csrf": token, "theme": "dark"}).status_code == 403


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://127.0.0.1:1"])
def test_a_form_of_another_origin_is_refused(visitor: Callable[..., Any], path: str, origin: str) -> None:
    assert visitor("admin").send(path, {"theme": "dark"}, Origin=origin).status_code == 403


def test_the_sign_in_form_needs_a_token_too(ingest: Any, visitor: Callable[..., Any]) -> None:
    browser = visitor()

    answer = browser.send("/console/sign-in", {"key": ingest.key("admin"), "csrf": ""})

    assert answer.status_code == 403
    assert browser.get("/console/").status_code == 303


def test_the_token_of_before_the_sign_in_counts_no_more_after_it(ingest: Any, visitor: Callable[..., Any]) -> None:
    browser = visitor()
    before = browser.token("/console/sign-in")
    browser.sign_in(ingest.key("admin"))

    assert browser.send("/console/theme", {"csrf": before, "theme": "dark"}).status_code == 403


def test_a_link_from_another_site_reloads_itself_so_that_the_strict_cookie_comes_along(
    visitor: Callable[..., Any],
) -> None:
    answer = visitor().get("/console/events?state=dead", Sec_Fetch_Site="cross-site")

    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0;url=/console/events?state=dead">' in answer.text


def test_a_theme_stays(viewer: Any) -> None:
    answer = viewer.send("/console/theme", {"theme": "dark", "next": "/console/events"})

    assert answer.headers["location"] == "/console/events"
    assert '<html lang="en" data-theme="dark">' in viewer.get("/console/events").text
    assert viewer.send("/console/theme", {"theme": "<script>"}).status_code == 400


def test_failed_sign_ins_are_counted_by_address_until_their_window_ends() -> None:
    now = [100.0]
    throttle = Throttle(lambda: now[0])

    for _ in range(MOST_FAILURES):
        assert throttle.seconds_left("10.0.0.1") == 0
        throttle.note_failure("10.0.0.1")

    assert throttle.seconds_left("10.0.0.1") == WINDOW_SECONDS
    assert throttle.seconds_left("10.0.0.2") == 0
    now[0] += WINDOW_SECONDS
    assert throttle.seconds_left("10.0.0.1") == 0


def test_a_console_secret_that_is_too_short_stops_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": "postgresql://h/d",
        "LIVE_TOKEN_SECRET": "x" * 32,
        "CONSOLE_SECRET": "short",
    }.items():
        monkeypatch.setenv(f"HOLDFAST_{name}", value)

    with pytest.raises(ConfigurationError, match="HOLDFAST_CONSOLE_SECRET"):
        load(IngestSettings)


def test_an_address_that_fails_too_often_waits_even_with_a_right_key(
    ingest: Any, start_ingest: Any, postgres: Postgres, valkey: Valkey, visitor: Callable[..., Any]
) -> None:
    other = start_ingest(
        postgres, valkey, database=ingest.database.engine.url.database, HOLDFAST_INGEST_PROCESSES="1",
        HOLDFAST_CONSOLE_SECRET=CONSOLE_SECRET, HOLDFAST_TRUSTED_PROXIES='["127.0.0.0/8"]',
    )  # fmt: skip
    browser, neighbour = visitor(url=other.url), visitor(url=other.url)
    browser.http.headers["X-Forwarded-For"] = "203.0.113.7"
    neighbour.http.headers["X-Forwarded-For"] = "203.0.113.8"
    for _ in range(MOST_FAILURES):
        assert browser.sign_in("hf_nobody").status_code == 401

    answer = browser.sign_in(ingest.key("admin"))

    assert neighbour.sign_in(ingest.key("admin")).status_code == 303, "behind the same proxy"

    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= WINDOW_SECONDS + 1
    assert "Wait" in answer.text
    assert browser.get("/console/").status_code == 303
