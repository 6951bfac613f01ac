"""The console's pages are measured: all of them, and every filter that they offer."""

import pytest
from bench.addresses import PAGES, VALUES, Address, Landmarks, addresses
from bench.pages import GOAL_MS, Times, table
from flask import Flask

from holdfast.ingest.console.pages.forms import FIELDS
from holdfast.ingest.console.room import install
from holdfast.runtime.settings import IngestSettings

MARKS = Landmarks(*(name for name in Landmarks.__annotations__))

NOT_MEASURED = {"export", "home", "sign_in", "live_token", "missing"}
"""A file of up to 10,000 events; a redirect, the door, a token, and what is nowhere, which read none."""


def test_every_page_of_the_console_is_among_the_addresses() -> None:
    app = Flask(__name__)
    secrets = {"live_token_secret": "x" * 40, "console_secret": "y" * 40}
    install(app, IngestSettings.model_validate({"database_url": "postgresql://nobody@127.0.0.1/nothing", **secrets}))
    pages = {
        rule.endpoint.removeprefix("console.")
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("console.") and "GET" in (rule.methods or ())
    }

    assert pages - NOT_MEASURED == set(PAGES)


def test_every_filter_of_the_events_page_is_among_the_addresses() -> None:
    assert set(FIELDS) - {"request_id", "trace_id", "parent_id"} <= set(VALUES)
    paths = [address.path for address in addresses(MARKS) if address.page == "events"]
    for name in (*FIELDS, "request_id", "trace_id", "received_after", "received_before"):
        assert any(f"{name}=" in path for path in paths), name


@pytest.mark.parametrize(("slowest_ms", "verdict"), [(GOAL_MS, "met"), (GOAL_MS + 1, "missed")])
def test_the_slowest_address_of_a_page_decides(slowest_ms: float, verdict: str) -> None:
    quick = Times(Address("events", "/events"), [2.0] * 20, 40.0)
    slow = Times(Address("events", "/events?type=t"), [50.0] * 18 + [slowest_ms] * 2, 400.0)

    written = table([quick, slow])

    assert f"| events | 2 | 50.0 | {slowest_ms:.1f} | 20.0 | `/events?type=t` | {verdict} |" in written
    assert ("missed: /events?type=t" in written) == (verdict == "missed")
