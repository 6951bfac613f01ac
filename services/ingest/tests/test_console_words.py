"""How the console says moments, spans and payloads."""

import json
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.ingest.console.seal import SESSION_SECONDS, Seal, Session
from holdfast.ingest.console.words import brief, bytes_text, count_text, pretty_json, since, span, stamp

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, 1, 3]))
def test_pretty_json_is_the_same_value_in_pythons_own_layout(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)

    assert pretty_json(text) == json.dumps(value, indent=2)


@pytest.mark.parametrize("text", ["1.10", "1e400", "-0.0", '"\\u0041\\""', '{"a":1,"a":2}', "19.990000000000000000001"])
def test_pretty_json_changes_no_token(text: str) -> None:
    assert "".join(pretty_json(text).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 ms"), (0.35, "350 ms"), (1, "1 s"), (59.9, "59 s"), (60, "1 min"), (119, "1 min"), (3600, "1 h"),
     (7500, "2 h 5 min"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_a_span_is_said_in_its_largest_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_a_moment_is_said_from_both_sides_and_in_utc() -> None:
    assert since(NOON - timedelta(minutes=4), NOON) == "4 min ago"
    assert since(NOON + timedelta(hours=2), NOON) == "in 2 h"
    assert since(NOON, NOON) == "now"
    assert stamp(NOON.astimezone(timezone(timedelta(hours=5)))) == "2026-11-28 12:00:00 UTC"


def test_numbers_and_sizes() -> None:
    assert count_text(1234567) == "1\u202f234\u202f567"
    assert (bytes_text(312), bytes_text(4300), bytes_text(3 * 1024**2)) == ("312 B", "4.2 KiB", "3.0 MiB")


def test_a_seal_opens_for_its_own_secret_alone() -> None:
    seal, session = Seal("a" * 32), Session("token", "abcdefghijkl", "proof")

    assert seal.open(seal.close(session)) == session
    assert Seal("b" * 32).open(seal.close(session)) == Session("")
    for text in (None, "", "x", "a.b.c", seal.close(session) + "x", "é" * 10, "x" * 5000):
        assert seal.open(text) == Session("")


def test_a_session_ends_after_a_working_day(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = Seal("a" * 32)
    sealed = seal.close(Session("token"))
    now = int(time.time())

    monkeypatch.setattr("itsdangerous.timed.TimestampSigner.get_timestamp", lambda _: now + SESSION_SECONDS)
    assert seal.open(sealed).csrf == "token"
    monkeypatch.setattr("itsdangerous.timed.TimestampSigner.get_timestamp", lambda _: now + SESSION_SECONDS + 2)
    assert seal.open(sealed) == Session("")


@pytest.mark.parametrize(
    ("value", "text"),
    [("a: b", "a: b"), (["events:read", "admin"], "events:read, admin"), (7, "7"), (True, "true"), ([], ""),
     ({"state": "dead", "type": ["x", 1]}, "state: dead, type: x, 1")],
)  # fmt: skip
def test_a_value_is_said_briefly(value: object, text: str) -> None:
    assert brief(value) == text
