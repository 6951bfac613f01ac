"""Events that handlers emit into debounce and unique windows."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.processor import Context, Debounce, Handlers, Unique
from holdfast.processor.testing import run

MakeExecutor = Callable[..., Any]

CHILDREN = """
SELECT e.id, e.ce_id, s.state FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.source = '/handlers/maker' AND e.type = '{type}' ORDER BY e.received_at, e.id
"""

IN_A_YEAR = datetime.now(UTC) + timedelta(days=365)

OPTIONS: list[dict[str, Any]] = [{}, {"transactional": False}, {"batch": 10}]


def emit_last(data: Any, ctx: Context) -> None:
    for number in range(data):
        ctx.emit("index.stale", {"number": number}, debounce=Debounce(600, key="doc-1"))


def emit_first(data: Any, ctx: Context) -> None:
    for number in range(data):
        ctx.emit("alarm.rang", {"number": number}, unique=Unique(600), subject="boiler")


def emit_attributes(data: Any, ctx: Context) -> None:
    ctx.emit("index.stale", data, debounceseconds=600, debouncekey="doc-1", region="eu")
    ctx.emit("alarm.rang", data, uniqueseconds="600")


def group_of(data: Any, ctx: Context) -> None:
    members = [{"type": "index.stale", "debounce": Debounce(600, key=f"{number % 2}")} for number in range(data)]
    ctx.emit_group(members, then=("all.done", None))


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("test.done", name="maker", **options)(function)
    return handlers


@pytest.mark.parametrize("options", OPTIONS)
def test_the_last_that_handlers_emit_waits(stored: Any, executor: MakeExecutor, options: dict[str, Any]) -> None:
    made = executor(handling(emit_last, **options))
    parents = [stored.record("test.done", count) for count in (3, 2)]
    for parent_id in parents:
        made.execute(parent_id, 1)

    states = {row.ce_id: row.state for row in stored.rows(CHILDREN.format(type="index.stale"))}
    assert states.pop(f"{parents[1]}:1") == "queued"
    assert list(states.values()) == ["discarded"] * 4


@pytest.mark.parametrize("options", OPTIONS)
def test_the_first_that_handlers_emit_is_the_one(stored: Any, executor: MakeExecutor, options: dict[str, Any]) -> None:
    made = executor(handling(emit_first, **options))
    parents = [stored.record("test.done", count) for count in (3, 2)]
    for parent_id in parents:
        made.execute(parent_id, 1)

    assert [row.state for row in stored.rows(CHILDREN.format(type="alarm.rang"))] == ["queued"]
    assert [stored.state(each) for each in parents] == ["processed"] * 2


def test_what_it_replaced_is_told_live(stored: Any, live: Any, executor: MakeExecutor) -> None:
    made = executor(handling(emit_last))
    for _ in range(2):
        made.execute(stored.record("test.done", 1), 1)

    first, _ = stored.rows(CHILDREN.format(type="index.stale"))
    assert [state for state, _, _ in live.told(first.id)] == ["queued", "discarded"]


def test_members_of_a_group_that_replace_each_other_count_as_discarded(stored: Any, executor: MakeExecutor) -> None:
    executor(handling(group_of)).execute(stored.record("test.done", 5), 1)

    [group] = stored.rows("SELECT size, open, discarded FROM event_group")
    assert (group.size, group.open, group.discarded) == (5, 2, 3)


@pytest.mark.parametrize(("name", "value"), [("unique", Unique(60)), ("uniqueseconds", 60)])
def test_a_member_of_a_group_is_not_unique(name: str, value: Any) -> None:
    def group(_: Any, ctx: Context) -> None:
        ctx.emit_group([{"type": "alarm.rang", name: value}], then=("all.done", None))

    with pytest.raises(TypeError, match=f"a member of a group has no {name}: one that is not made would never end"):
        run(handling(group, transactional=False).find("test.done"), 1)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"debounceseconds": 0}, ValueError, "from 1 to 86400, such as 30; not 0"),
        ({"debounce": 30}, TypeError, r"debounce is a Debounce, such as Debounce\(30, key=…\); not 30"),
        ({"debounce": Debounce(30), "unique": Unique(30)}, ValueError, "debounce or unique, not both"),
        ({"debounce": Debounce(30), "debouncekey": "a"}, ValueError, "says it all: leave debouncekey out"),
        ({"debounce": Debounce(30), "deliver_at": IN_A_YEAR}, ValueError, "debounceseconds or deliverat, not both"),
    ],
)
def test_a_wrong_window_fails_where_it_is_emitted(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    def wrong(data: Any, ctx: Context) -> None:
        ctx.emit("index.stale", data, **options)

    with pytest.raises(kind, match=said):
        run(handling(wrong, transactional=False).find("test.done"), 1)


def test_the_testing_kit_shows_the_window() -> None:
    [last] = run(handling(emit_last, transactional=False).find("test.done"), 1).emitted
    [first] = run(handling(emit_first, transactional=False).find("test.done"), 1).emitted
    by_attributes = run(handling(emit_attributes, transactional=False).find("test.done"), 1).emitted

    assert (last.debounce, last.unique, last.extensions) == (Debounce(600, key="doc-1"), None, {})
    assert (first.debounce, first.unique, first.subject) == (None, Unique(600), "boiler")
    assert [each.extensions for each in by_attributes] == [{"region": "eu"}, {}]
    assert [each.debounce or each.unique for each in by_attributes] == [Debounce(600, key="doc-1"), Unique(600)]
