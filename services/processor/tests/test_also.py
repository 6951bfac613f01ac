"""Several handlers of one type: each has an event of its own, made before the type's own handler begins."""

import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from holdfast.domain.attributes import HANDLER, attribute_faults
from holdfast.domain.errors import ConfigurationError
from holdfast.domain.event import Doorbell
from holdfast.local.fixtures import Eventually
from holdfast.messaging.doorbell import QUEUE
from holdfast.processor import Context, Handlers, Reject
from holdfast.processor.testing import attempt, run
from holdfast.storage.copies import record_copy
from holdfast.storage.statistics import unserved

MakeExecutor = Callable[..., Any]
Start = Callable[..., Any]

HANDLERS = "also_handlers:handlers"

MADE = """
SELECT e.*, s.state, s.attempt AS attempts, e.extensions ->> 'holdfasthandler' AS handler
FROM event e JOIN processing_state s ON s.event_id = e.id WHERE e.parent_id = :id ORDER BY handler
"""

DATA = b'{"order" : 1.50, "note": "\xc3\xa4"}'


def nothing(data: Any, ctx: Context) -> None: ...


def rejecting(data: Any, ctx: Context) -> None:  # noqa: ARG001
    raise Reject("never")


def committed(ctx: Context, note: str) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, :note)"), {"id": ctx.event.id, "note": note})


def handling(main: Callable[..., Any] | None = nothing, *names: str, **options: Any) -> Handlers:
    handlers = Handlers()
    if main is not None:
        handlers.on("order", name="main", **options)(main)
    for name in names or ("mail", "audit"):
        handlers.on("order", also=True, name=name)(nothing)
    return handlers


def made(stored: Any, event_id: UUID) -> Sequence[Any]:
    rows: Sequence[Any] = stored.rows(MADE, event_id)
    return rows


def work_off(one: Any, stored: Any) -> None:
    """Run whatever is due, until nothing is."""
    while due := stored.rows(
        "SELECT event_id, version FROM processing_state"
        " WHERE state IN ('queued', 'failed') AND coalesce(waiting_since, available_at) <= now()"
    ):
        for row in due:
            one.execute(row.event_id, row.version)


@pytest.fixture(params=["one", "batch", "async", "outside"])
def main(request: pytest.FixtureRequest) -> dict[str, Any]:
    """In whatever way the type's own handler runs."""

    async def awaits(data: Any, ctx: Context) -> None: ...

    ways: dict[str, dict[str, Any]] = {
        "one": {"main": nothing}, "batch": {"main": nothing, "batch": 10}, "async": {"main": awaits},
        "outside": {"main": nothing, "transactional": False},
    }  # fmt: skip
    return ways[request.param]


def test_an_event_is_made_for_each_with_the_same_type_and_data(
    executor: MakeExecutor, stored: Any, live: Any, main: dict[str, Any]
) -> None:
    event_id = stored.record("order", subject="7", audience="user-1", extensions={"region": "eu"})
    stored.run(f"UPDATE event SET data_bytes = '\\x{DATA.hex()}'")  # noqa: S608
    other_id = stored.record("order", {})
    one = executor(handling(**main))
    one.start()

    one.run_together(one.claim([Doorbell(event_id, 1), Doorbell(other_id, 1)]))
    one.stop()

    assert (stored.state(event_id), stored.state(other_id)) == ("processed", "processed")
    for number, each in enumerate(made(stored, event_id)):
        name = ("audit", "mail")[number]
        assert (each.type, bytes(each.data_bytes), each.is_json) == ("order", DATA, True)
        assert (each.source, each.ce_id, each.subject, each.audience) == ("/test", f"{event_id}:{name}", "7", "user-1")
        assert (each.extensions, each.state) == ({"region": "eu", HANDLER: name}, "queued")
        assert live.told(each.id) == [("queued", 1, 0)]
    assert len(made(stored, event_id)) == len(made(stored, other_id)) == 2
    rung = {json.loads(body)["args"][0] for body in live.client.hvals(f"dramatiq:{QUEUE}.msgs")}
    assert {str(each.id) for each in made(stored, event_id)} <= rung


def test_each_is_served_by_its_handler_alone_and_makes_no_others(executor: MakeExecutor, stored: Any) -> None:
    handlers, calls = Handlers(), list[tuple[str, Any, str]]()

    def noting(name: str) -> Callable[..., None]:
        def handle(data: Any, ctx: Context) -> None:
            calls.append((name, data, ctx.event.type))

        return handle

    handlers.on("order", name="main")(noting("main"))
    handlers.on("ord*", also=True, name="mail")(noting("mail"))
    handlers.on("order", also=True, name="audit", batch=5)(noting("audit"))
    event_id = stored.record("order", {"n": 1})

    work_off(executor(handlers), stored)

    assert sorted(calls) == [(name, {"n": 1}, "order") for name in ("audit", "mail", "main")]
    assert stored.scalar("SELECT count(*) FROM event") == 3
    assert {each.state for each in made(stored, event_id)} == {"processed"}


def test_the_end_of_the_main_handler_is_not_theirs(executor: MakeExecutor, stored: Any) -> None:
    event_id = stored.record("order")

    work_off(executor(handling(rejecting)), stored)

    assert stored.state(event_id) == "dead"
    assert [each.state for each in made(stored, event_id)] == ["processed", "processed"]


def test_attempts_and_replays_make_them_once(executor: MakeExecutor, stored: Any) -> None:
    def failing(data: Any, ctx: Context) -> None:  # noqa: ARG001
        raise ConnectionError

    event_id = stored.record("order")
    one = executor(handling(failing))
    for _ in range(3):
        one.execute(event_id, stored.row(event_id).version)
        stored.make_due()
    stored.run("UPDATE processing_state SET state = 'queued', attempt = 0 WHERE state = 'failed'")  # as a replay does

    one.execute(event_id, stored.row(event_id).version)

    assert stored.row(event_id).attempt == 1
    assert len(made(stored, event_id)) == 2


def test_a_copy_is_for_the_handler_of_its_original(executor: MakeExecutor, stored: Any) -> None:
    event_id = stored.record("order")
    one = executor(handling())
    work_off(one, stored)
    [child] = [each for each in made(stored, event_id) if each.handler == "mail"]
    with stored.database.transaction() as session:
        copies = [
            record_copy(session, each, idempotency_key="k", grace_seconds=60).update.event_id
            for each in (event_id, child.id)
        ]

    work_off(one, stored)

    assert [stored.log(each)[0].handler for each in copies] == ["main", "mail"]
    assert stored.scalar("SELECT count(*) FROM event") == 5, "and nothing more was made"


def test_without_a_handler_of_its_own_an_event_is_processed_once_it_is_fanned_out(
    executor: MakeExecutor, stored: Any
) -> None:
    event_id = stored.record("order")

    work_off(executor(handling(None)), stored)

    assert (stored.state(event_id), stored.log(event_id)[0].handler) == ("processed", "holdfast.fan-out")
    assert [each.state for each in made(stored, event_id)] == ["processed", "processed"]


def test_a_worker_that_has_lost_its_lease_makes_none(executor: MakeExecutor, stored: Any) -> None:
    event_id = stored.record("order")
    one = executor(handling())
    [lease] = one.claim([Doorbell(event_id, 1)])
    stored.take_away(event_id)

    one.run(lease)

    assert made(stored, event_id) == []


def test_an_event_for_a_handler_that_is_not_here_waits_for_it(executor: MakeExecutor, stored: Any) -> None:
    event_id = stored.record("order")
    work_off(executor(handling(nothing, "mail", "audit"), no_handler_seconds=60), stored)
    event_id = stored.record("order")
    all_here = executor(handling(nothing, "mail", "audit"), no_handler_seconds=60)
    all_here.execute(event_id, 1)
    waiting, taken = made(stored, event_id)
    without = executor(handling(nothing, "mail"), no_handler_seconds=60)

    for each in (waiting, taken):
        without.execute(each.id, 1)

    assert (stored.state(waiting.id), stored.row(waiting.id).unserved_type) == ("queued", "order\x1faudit")
    assert stored.state(taken.id) == "processed"
    assert [each.type for each in stored.database.call(unserved, "acme")] == ["order (for audit)"]
    [lease] = all_here.claim_due(5, is_suspect=False, overdue_seconds=0)
    all_here.run(lease)
    assert stored.state(waiting.id) == "processed"


def test_one_that_nobody_serves_in_time_says_which_handler_is_missing(executor: MakeExecutor, stored: Any) -> None:
    event_id = stored.record("order")
    executor(handling(nothing, "mail")).execute(event_id, 1)
    [child] = made(stored, event_id)

    executor(handling(nothing, "audit")).execute(child.id, 1)

    assert stored.error(child.id).error_type == "no_handler"
    assert "no handler named mail" in stored.error(child.id).message


def test_they_do_not_wait_for_the_order_of_their_type(executor: MakeExecutor, stored: Any) -> None:
    def failing(data: Any, ctx: Context) -> None:  # noqa: ARG001
        raise ConnectionError

    one = executor(handling(failing, "mail", ordering="subject"))
    one.start()
    first, second = (stored.record("order", subject="7") for _ in range(2))
    one.execute(first, 1)
    [child] = made(stored, first)
    assert stored.state(first) == "failed", "its subject waits for it"

    one.execute(second, 1)
    one.execute(child.id, 1)
    one.stop()

    assert (stored.state(second), stored.state(child.id)) == ("queued", "processed")
    assert stored.row(child.id).lane_key is None


def test_nobody_puts_them_in_line_later(executor: MakeExecutor, stored: Any) -> None:
    handlers = handling(nothing, "mail", ordering="subject")
    handlers.on("other", name="other", ordering="subject")(nothing)
    event_id = stored.record("order", subject="7")
    one = executor(handlers)
    one.execute(event_id, 1)
    [child] = made(stored, event_id)
    later = stored.record("other", subject="7")  # before anybody has said that this type is ordered

    one.execute(later, 1)

    assert (stored.state(later), stored.state(child.id)) == ("processed", "queued")
    assert stored.row(child.id).lane_key is None


def test_nobody_makes_such_an_event_by_hand() -> None:
    def emitting(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.emit("order", None, holdfasthandler="mail")

    handlers = Handlers()
    handlers.on("order", name="main", transactional=False)(emitting)
    with pytest.raises(TypeError, match=HANDLER):
        run(emitting, None)
    sent = {"specversion": "1.0", "id": "1", "source": "/s", "type": "order", HANDLER: "mail"}
    assert [name for name, _, _ in attribute_faults(sent)] == [HANDLER]


def test_two_for_one_type_are_refused_unless_one_is_beside_the_other() -> None:
    handlers = handling()

    with pytest.raises(ConfigurationError, match=r"test_also.py:\d+ .*test_also.py:\d+.*also=True"):
        handlers.on("order", name="second")(nothing)
    with pytest.raises(ConfigurationError, match="two handlers are named 'mail'"):
        handlers.on("other", name="mail", also=True)(nothing)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"also": "yes"}, "True or False"),
        ({"also": True, "ordering": "subject"}, "leave out ordering"),
        ({"name": "holdfast.fan-out"}, "choose another name"),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"test_also.py:\d+: .*{remedy}"):
        Handlers().on("order", **{"name": "one", **options})(nothing)


def test_they_are_found_by_their_type_and_tested_as_any_other() -> None:
    handlers = Handlers()
    handlers.include(handling())

    names = [each.name for each in handlers.also("order")]

    assert names == ["mail", "audit"]
    assert handlers.also("other") == []
    handlers.on("order", also=True, name="call", transactional=False)(rejecting)
    assert attempt(handlers.also("order")[2], None).state == "dead"


# ── as processes ─────────────────────────────────────────────────────────────────────────────────────────────────


def fates(stored: Any, event_id: UUID) -> dict[str, tuple[str, int]]:
    """State and attempts of the events that were made, by their handlers."""
    return {each.handler: (each.state, each.attempts) for each in made(stored, event_id)}


def notes(stored: Any, event_id: UUID) -> list[str]:
    """Whose effects of the event are committed, each as often as they are."""
    return sorted(row.note for row in stored.rows("SELECT note FROM effect WHERE event_id = :id", event_id))


@pytest.mark.parametrize("is_bad", [False, True])
def test_each_handler_has_its_own_state_retries_and_dead_letter(
    start: Start, stored: Any, live: Any, eventually: Eventually, is_bad: bool
) -> None:
    start(HANDLERS=HANDLERS)
    event_id = stored.record("shop.order", {"is_bad": is_bad})
    live.ring((event_id, 1))

    expected = {"audit": ("dead", 1), "mail": ("processed", 3)}
    eventually(lambda: fates(stored, event_id) == expected, timeout_seconds=30)

    eventually(lambda: stored.state(event_id) == ("dead" if is_bad else "processed"))
    assert notes(stored, event_id) == (["mail"] if is_bad else ["charge", "mail"])
    [audit, mail] = made(stored, event_id)
    assert [each.error_type for each in stored.errors(audit.id)] == ["closed"]
    assert [each.error_type for each in stored.errors(mail.id)] == ["ConnectionError"] * 2


@pytest.mark.parametrize("killer", ["charge", "mail"])
def test_a_kill_in_any_of_them_doubles_and_loses_nothing(
    start: Start, stored: Any, live: Any, eventually: Eventually, killer: str
) -> None:
    start(HANDLERS=HANDLERS, LEASE_SECONDS="3")
    event_id = stored.record("shop.order", {"killed_by": killer})
    live.ring((event_id, 1))

    eventually(lambda: stored.state(event_id) == "processed", timeout_seconds=60)
    eventually(
        lambda: {state for state, _ in fates(stored, event_id).values()} == {"dead", "processed"}, timeout_seconds=60
    )

    assert fates(stored, event_id).keys() == {"audit", "mail"}
    assert notes(stored, event_id) == ["charge", "mail"]


def test_a_type_with_further_handlers_alone_is_served(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    start(HANDLERS=HANDLERS)
    event_id = stored.record("shop.visit", {})
    live.ring((event_id, 1))

    eventually(lambda: fates(stored, event_id) == {"audit": ("dead", 1), "count": ("processed", 1)})

    assert (stored.state(event_id), notes(stored, event_id)) == ("processed", ["count"])
