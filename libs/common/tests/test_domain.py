"""The rules that need no server: positions, topics, retries, digests, the tree of errors."""

import importlib
import json
import math
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain import errors
from holdfast.domain.errors import ConfigurationError, HoldfastError, InvalidPosition, InvalidTopic
from holdfast.domain.event import canonical_json, digest
from holdfast.domain.position import GapReason, Position, can_resume, merge
from holdfast.domain.retry import DEFAULT_BACKOFF, Backoff
from holdfast.domain.state import CLAIMABLE, FINISHED, OPEN, SETTLED, State
from holdfast.domain.topics import check_grant, check_topic, is_granted, topics_of
from holdfast.domain.transitions import LEGAL_EDGES
from holdfast.runtime.ids import uuid7

EVENT = UUID("01932c07-f2b1-7a6e-9c1f-2b5e8d7c4a10")

epochs = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", min_size=1, max_size=64)
offsets = st.integers(0, 10**15)
positions = st.builds(Position, epochs, offsets)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


# positions


@given(positions)
def test_a_position_is_read_as_it_is_written(position: Position) -> None:
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", ":1", "a:-1", "a:01", "a:1 ", " a:1", "a b:1", "a:1:2", "a:1e3", "a:٣", "é:1", "a:1\n",
        "x" * 65 + ":1",
    ],
)  # fmt: skip
def test_a_text_that_was_never_issued_is_no_position(text: str) -> None:
    with pytest.raises(InvalidPosition, match="<epoch>:<offset>"):
        Position.parse(text)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60), st.integers(0, 60))
def test_resuming_is_allowed_exactly_when_all_that_was_missed_can_be_given(
    since: int, top: int, window: int, limit: int
) -> None:
    kept = list(range(1, top + 1))[-window:]
    first = kept[0] if kept else None

    reason = can_resume(Position("e", since), epoch="e", top=top, first=first, replay_limit=limit)

    missed = list(range(since + 1, top + 1))
    is_complete = since <= top and set(missed) <= set(kept) and len(missed) <= limit
    assert (reason is None) == is_complete


@pytest.mark.parametrize(
    ("since", "first", "reason"),
    [
        (Position("old", 3), 1, GapReason.EPOCH),
        (Position("e", 11), 1, GapReason.EPOCH),
        (Position("e", 3), 5, GapReason.TRIMMED),
        (Position("e", 3), None, GapReason.TRIMMED),
        (Position("e", 3), 4, GapReason.TOO_MANY),
        (Position("e", 5), 6, None),
        (Position("e", 10), None, None),
    ],
)
def test_a_gap_says_why(since: Position, first: int | None, reason: GapReason | None) -> None:
    assert can_resume(since, epoch="e", top=10, first=first, replay_limit=5) is reason


@given(st.lists(st.builds(Position, st.just("e"), offsets), min_size=1))
def test_a_held_position_never_goes_back_within_an_epoch(seen: list[Position]) -> None:
    held: Position | None = None
    for position in seen:
        held = merge(held, position)

    assert held == Position("e", max(position.offset for position in seen))


def test_a_new_epoch_replaces_whatever_was_held() -> None:
    assert merge(Position("a", 90), Position("b", 1)) == Position("b", 1)


# topics


def test_an_update_goes_to_event_audience_and_tenant() -> None:
    assert topics_of(event_id=EVENT, tenant="acme", audience="user-1") == [
        f"event:{EVENT}",
        "audience:user-1",
        "tenant:acme",
    ]
    assert topics_of(event_id=EVENT, tenant="acme", audience=None) == [f"event:{EVENT}", "tenant:acme"]


NAMES = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="*"), min_size=1, max_size=255
).filter(lambda name: len(name.encode()) <= 255)
"""Any Unicode without controls: joiners, line separators, private characters and those of no plane yet among it."""


@given(
    st.uuids(),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
    st.none() | NAMES,
)
def test_every_topic_that_is_published_to_can_be_subscribed_to(
    event_id: UUID, tenant: str, audience: str | None
) -> None:
    for topic in topics_of(event_id=event_id, tenant=tenant, audience=audience):
        assert check_topic(topic) == topic


def test_two_spellings_of_an_event_s_id_are_one_topic() -> None:
    assert check_topic(f"event:{str(EVENT).upper()}") == f"event:{EVENT}"


@pytest.mark.parametrize(
    "text",
    [
        "", "event:", "event:7", "users:1", "audience", "audience:", "tenant:a\n", "audience:a*", "audience:\x00",
        "audience:" + "a" * 256, "audience:" + "é" * 128, "audience:\x85", "audience:\x7f", "audience:\ud800", "tenant:\x00",
    ],
)  # fmt: skip
def test_other_texts_are_no_topics(text: str) -> None:
    with pytest.raises(InvalidTopic):
        check_topic(text)


@pytest.mark.parametrize(
    "name",
    [
        "👩\u200d👩\u200d👧", "a" * 255, "é" * 127, "\u2028", "\u200b", "\u202e", "\ufeff", "\U0010ffff", " ",
        "a,tenant:b", "%2A",
    ],
    ids=ascii,
)  # fmt: skip
def test_any_unicode_without_controls_up_to_255_bytes_names_an_audience(name: str) -> None:
    topic = f"audience:{name}"

    assert check_topic(topic) == check_grant(topic) == topic
    assert is_granted(topic, grants=[topic], tenant="acme")


@pytest.mark.parametrize(
    ("name", "reason"), [("", "this one has 0"), ("a" * 256, "this one has 256"), ("\x85", "control")]
)
def test_a_refused_name_is_told_why(name: str, reason: str) -> None:
    with pytest.raises(InvalidTopic, match=reason):
        check_topic(f"audience:{name}")


@pytest.mark.parametrize(
    "text", ["event:*", "audience:user-*", "tenant:acme", f"event:{EVENT}", "audience:" + "a" * 254 + "*"]
)
def test_a_grant_is_a_topic_or_the_start_of_one(text: str) -> None:
    assert check_grant(text) == text


@pytest.mark.parametrize(
    "text", ["*", "ev*", "users:*", "audience:*a*", "audience:a\n*", "audience:" + "a" * 255 + "*"]
)
def test_other_texts_are_no_grants(text: str) -> None:
    with pytest.raises(InvalidTopic):
        check_grant(text)


@pytest.mark.parametrize(
    ("topic", "grants", "is_allowed"),
    [
        ("audience:user-42", ["audience:user-42"], True),
        ("audience:user-421", ["audience:user-42"], False),
        ("audience:user-421", ["audience:user-42*"], True),
        ("audience:user-42", ["event:*"], False),
        ("audience:user-42", [], False),
        ("tenant:acme", ["tenant:acme"], True),
        ("tenant:acme", ["tenant:*"], True),
        ("tenant:other", ["tenant:*"], False),
        ("tenant:other", ["tenant:other"], False),
    ],
)
def test_a_topic_is_seen_with_a_grant_only_and_a_tenant_s_by_that_tenant_only(
    topic: str, grants: list[str], is_allowed: bool
) -> None:
    assert is_granted(topic, grants=grants, tenant="acme") is is_allowed


# retries

backoffs = st.builds(
    lambda first, more, factor, attempts: Backoff(first=first, cap=first + more, factor=factor, attempts=attempts),
    st.floats(0, 1e3), st.floats(0, 1e6), st.floats(1, 100), st.integers(1, 10**6),
)  # fmt: skip


@given(backoffs, st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_delay_lies_between_nothing_and_the_ceiling_and_the_ceiling_below_the_cap(
    backoff: Backoff, attempt: int, draw: float
) -> None:
    ceiling = backoff.ceiling_seconds(attempt)

    assert 0 <= backoff.delay_seconds(attempt, draw=draw) <= ceiling <= backoff.cap


@given(backoffs, st.integers(1, 10**6))
def test_a_later_attempt_never_has_a_lower_ceiling(backoff: Backoff, attempt: int) -> None:
    assert backoff.ceiling_seconds(attempt) <= backoff.ceiling_seconds(attempt + 1)


def test_the_default_ceilings_are_those_of_its_description() -> None:
    ceilings = [DEFAULT_BACKOFF.ceiling_seconds(attempt) for attempt in range(1, DEFAULT_BACKOFF.attempts)]

    assert ceilings == [2, 6, 18, 54, 162, 486, 900]
    assert sum(ceilings) <= 43 * 60


def test_the_last_attempt_exhausts_the_policy() -> None:
    assert [Backoff(attempts=2).is_exhausted(attempt) for attempt in (1, 2, 3)] == [False, True, True]


NO_NUMBERS = [{"first": math.nan}, {"cap": math.nan}, {"factor": math.nan}, {"first": 1, "cap": math.inf}]


@pytest.mark.parametrize(
    "wrong", [{"first": -1}, {"first": 10, "cap": 9}, {"factor": 0.5}, {"attempts": 0}, *NO_NUMBERS]
)
def test_an_impossible_policy_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="0 <= first <= cap"):
        Backoff(**wrong)


# events


@given(json_values)
def test_canonical_json_keeps_the_value(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_refuses_what_json_does_not_have(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_a_digest_tells_types_and_kinds_of_data_apart() -> None:
    several = [
        digest("a", None, None), digest("a", "null", None), digest("a", '""', None), digest("a", None, b""),
        digest("a", None, b"null"), digest("b", None, None), digest("b", "null", None),
    ]  # fmt: skip

    assert len(set(several)) == len(several)
    assert {len(each) for each in several} == {32}


# states and errors


def test_the_groups_of_states_cut_the_states_in_two() -> None:
    assert set(State) == OPEN | FINISHED
    assert OPEN.isdisjoint(FINISHED)
    assert CLAIMABLE < OPEN
    assert SETTLED < FINISHED


def test_the_legal_edges_are_those_of_the_design() -> None:
    written = """
        queued failed        -> processing
        processing           -> processed failed dead queued discarded
        queued failed        -> queued
        dead discarded       -> queued
        queued failed dead   -> discarded
    """
    edges = set()
    for line in written.split("\n"):
        sources, _, targets = line.partition("->")
        edges |= {(State(source), State(target)) for source in sources.split() for target in targets.split()}

    assert edges == LEGAL_EDGES


def test_every_error_is_exported_and_drawn_in_the_tree() -> None:
    kinds = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, HoldfastError)
    }

    assert kinds == set(errors.__all__)
    assert errors.__doc__ is not None
    assert [name for name in kinds if name not in errors.__doc__] == []


@pytest.mark.parametrize(
    "module",
    [
        "domain.event", "domain.names", "domain.position", "domain.retry", "domain.revocation", "domain.state",
        "domain.topics", "domain.transitions", "domain.update", "messaging.broker", "messaging.contracts",
        "messaging.doorbell", "messaging.live", "messaging.revocations",
        "runtime.background", "runtime.health", "runtime.ids", "runtime.logging", "runtime.settings", "runtime.telemetry",
        "storage.backlog", "storage.claims", "storage.contents", "storage.database", "storage.dispatch", "storage.events",
        "storage.keys", "storage.leases", "storage.lifecycle", "storage.migrate", "storage.revocations", "storage.schema",
        "storage.statements", "storage.tables", "storage.updates",
    ],
)  # fmt: skip
def test_an_export_list_names_what_is_there(module: str) -> None:
    loaded = importlib.import_module(f"holdfast.{module}")

    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []
    assert len(set(loaded.__all__)) == len(loaded.__all__)


def test_an_id_begins_with_its_time_and_is_of_version_seven() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()

    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == uuid4().variant
