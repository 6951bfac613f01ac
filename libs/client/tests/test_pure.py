"""What needs no server: pauses, where the stack is, how an update looks, and what the package exports."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import holdfast.client
from holdfast.client.connection import Address, find_address
from holdfast.client.live import _Watch
from holdfast.client.render import update_line
from holdfast.client.retry import backoff_seconds, retry_after_seconds

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def test_pauses_double_up_to_a_limit() -> None:
    assert [backoff_seconds(attempt, 1.0) for attempt in (1, 2, 3, 6, 7, 10_000)] == [0.2, 0.4, 0.8, 6.4, 10.0, 10.0]


def test_pauses_are_spread_over_their_second_half() -> None:
    assert [backoff_seconds(2, random) for random in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0), (" 3 ", 3.0), ("Tue, 24 Nov 2026 09:30:05 GMT", 5.0), ("Tue, 24 Nov 2026 09:29:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 09:30:05 -0000", 5.0), ("-3", 0.0), ("soon", 0.0), ("", 0.0), ("٣", 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_seconds({"Retry-After": value}, now=NOW) == seconds


@pytest.fixture
def below_a_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder two levels below one with a ``stack.json``, made the current one."""
    stack = {"ingest_url": "http://127.0.0.1:8080", "api_key": "hf_local", "live_url": "ws://127.0.0.1:8090/v1/live"}
    (tmp_path / ".holdfast").mkdir()
    (tmp_path / ".holdfast" / "stack.json").write_text(json.dumps(stack))
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    return here


LOCAL = Address("http://127.0.0.1:8080", "hf_local", "ws://127.0.0.1:8090/v1/live")


def test_a_local_stack_is_found_from_a_folder_below(below_a_stack: Path) -> None:
    assert below_a_stack.is_dir()
    assert find_address(None, None) == LOCAL
    assert find_address("", "") == LOCAL
    assert find_address("http://127.0.0.1:8080/", None).api_key == "hf_local"


def test_what_is_given_goes_before_the_local_stack(below_a_stack: Path) -> None:
    assert below_a_stack.is_dir()
    assert find_address(None, "hf_own", "ws://own") == Address(LOCAL.url, "hf_own", "ws://own")


def test_a_local_key_is_not_for_another_server(below_a_stack: Path) -> None:
    assert below_a_stack.is_dir()
    assert find_address("https://events.example.com", None) == Address("https://events.example.com", None, None)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_broken_stack_json_is_passed_over(below_a_stack: Path, content: str) -> None:
    broken = below_a_stack / ".holdfast"
    broken.mkdir()
    (broken / "stack.json").write_text(content)

    assert find_address(None, None) == LOCAL


def test_a_line_says_what_happened_and_can_not_move_the_cursor() -> None:
    error = {"type": "ValueError", "message": "two\nlines \x1b[2J"}
    event = {
        "id": "01a20ce1-a999-7253-85bb-3c3e269307a2", "type": "t\x1b", "state": "failed", "version": 3, "attempt": 1,
        "at": "2026-11-24T09:30:00.123456Z", "detail": {"error": error, "retry_in_seconds": 2.0},
    }  # fmt: skip

    line = update_line(event).plain

    assert line.isprintable()
    assert line.startswith("09:30:00.123  failed")
    assert line.endswith("ValueError: two lines  [2J (again in 2.0 s)")


def test_an_error_whose_text_is_not_for_this_key_is_told_by_its_type() -> None:
    event = {
        "id": "01a20ce1-a999-7253-85bb-3c3e269307a2", "type": "t", "state": "dead", "version": 3, "attempt": 1,
        "at": "2026-11-24T09:30:00.123456Z", "detail": {"error": {"type": "ValueError", "message": None}},
    }  # fmt: skip

    assert update_line(event).plain.endswith("  ValueError")


def frames_of(watching: _Watch, token: str) -> list[str]:
    return [watching.hello(token), *watching.subscribes(token)]


def test_topics_whose_positions_do_not_fit_into_a_hello_are_subscribed_after_it() -> None:
    topics = [f"event:01a20ce1-a999-7253-85bb-3c3e269{number:05}" for number in range(128)]
    positions = {topic: f"0123456789abcdef-{number}:{number}" for number, topic in enumerate(topics)}
    token = "t" * 1500

    hello, *subscribes = frames_of(_Watch(topics, positions), token)

    assert subscribes
    assert all(len(frame) <= 8 * 1024 for frame in (hello, *subscribes))
    opened = json.loads(hello)
    asked = {topic: opened["positions"][topic] for topic in opened["topics"]}
    for frame in subscribes:
        asked |= {each["topic"]: each["since"] for each in json.loads(frame)["topics"]}
    assert asked == positions


@pytest.mark.parametrize(("count", "has_session"), [(3, True), (128, False)])
def test_a_session_that_would_start_topics_without_their_positions_is_not_continued(
    count: int, has_session: bool
) -> None:
    topics = [f"event:01a20ce1-a999-7253-85bb-3c3e269{number:05}" for number in range(count)]
    watching = _Watch(topics, dict.fromkeys(topics, "0123456789abcdef-1:1"))
    watching.take({"type": "welcome", "session": "s"})

    assert ("session" in json.loads(watching.hello("t"))) is has_session


def test_topics_that_fit_go_with_the_hello_alone() -> None:
    topics = [f"audience:user-{number}" for number in range(30)]

    [hello] = frames_of(_Watch(topics, {}), "jwt")

    assert json.loads(hello)["topics"] == topics


def test_a_token_that_fills_the_hello_leaves_the_topics_to_a_subscribe() -> None:
    hello, subscribe = frames_of(_Watch(["audience:a"], {}), "t" * 7900)

    assert json.loads(hello)["topics"] == []
    assert json.loads(subscribe)["topics"] == [{"topic": "audience:a", "since": None}]


def test_the_tree_in_the_docstring_is_the_tree_of_exceptions() -> None:
    exported = {name: getattr(holdfast.client, name) for name in holdfast.client.__all__}
    errors = {name for name, value in exported.items() if isinstance(value, type) and issubclass(value, Exception)}

    assert set(re.findall(r"^    (?:[├└]── )?(\w+)", holdfast.client.__doc__ or "", re.MULTILINE)) == errors
    assert all(issubclass(exported[name], holdfast.client.ClientError) for name in errors)
