"""``async def`` handlers: on one event loop a process, many at once, with the guarantees of all others."""

import asyncio
import contextlib
import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast.domain.errors import ConfigurationError
from holdfast.domain.event import Doorbell
from holdfast.local.fixtures import Eventually
from holdfast.processor import Attempt, BatchContext, Context, Handlers, Reject, Retry, Snooze
from holdfast.processor.handlers.discovery import discover
from holdfast.runtime import logging

MakeExecutor = Callable[..., Any]
Start = Callable[..., Any]

HANDLERS = "async_handlers:handlers"

CHILDREN = "SELECT count(*) FROM event WHERE parent_id IS NOT NULL"

DOUBLED = "SELECT count(*) - count(DISTINCT parent_id) FROM event WHERE parent_id IS NOT NULL"


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    handlers.on("test.done", name="handler", **options)(function)
    return handlers


@pytest.fixture
def serve(executor: MakeExecutor) -> Iterator[Callable[..., Any]]:
    """An executor, watching, as a process has it."""
    with contextlib.ExitStack() as made:

        def serve_these(handlers: Handlers, **options: Any) -> Any:
            one = executor(handlers, **options)
            one.start()
            made.callback(one.stop)
            return one

        yield serve_these


def test_an_event_is_processed_with_its_result_and_what_was_emitted(
    serve: Any, stored: Any, live: Any, eventually: Any
) -> None:
    async def work(data: Any, ctx: Context) -> Any:
        ctx.progress(0.5, "half")
        # Told by another thread, which has nothing to tell any more once the event has ended.
        await asyncio.to_thread(eventually, lambda: ("processing", 2, 1) in live.told(ctx.event.id))
        ctx.emit("made", {"of": data})
        return {"got": data}

    event_id = stored.record("test.done", 7)
    serve(handling(work)).execute(event_id, 1)

    [entry] = stored.log(event_id)
    assert (stored.state(event_id), entry.handler, entry.result) == ("processed", "handler", {"got": 7})
    assert stored.scalar("SELECT count(*) FROM event WHERE type = 'made'") == 1


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (ValueError("no"), "failed", "ValueError"),
        (Retry("later", after=5), "failed", "Retry"),
        (Reject("never", code="out_of_stock"), "dead", "out_of_stock"),
        (SystemExit(3), "failed", "SystemExit"),
        (asyncio.CancelledError(), "failed", "CancelledError"),
    ],
)
def test_what_a_coroutine_raises_is_judged_as_of_any_handler(
    serve: Any, stored: Any, error: BaseException, state: str, kind: str
) -> None:
    async def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.emit("made", None)
        await asyncio.sleep(0)
        raise error

    event_id = stored.record("test.done")
    serve(handling(work)).execute(event_id, 1)

    assert (stored.state(event_id), stored.error(event_id).error_type) == (state, kind)
    assert stored.scalar(CHILDREN) == 0


def test_it_may_put_its_event_off(serve: Any, stored: Any) -> None:
    async def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        raise Snooze(60)

    event_id = stored.record("test.done")
    serve(handling(work)).execute(event_id, 1)

    assert (stored.state(event_id), stored.row(event_id).attempt) == ("queued", 0)


def test_lines_and_tasks_of_a_coroutine_know_their_own_event(serve: Any, stored: Any) -> None:
    seen: dict[str, set[str]] = {}

    async def look(event_id: str) -> None:
        await asyncio.sleep(0.01)
        seen.setdefault(event_id, set()).add(str(logging._ABOUT.get()["event_id"]))

    async def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        for _ in range(3):
            await asyncio.gather(look(str(ctx.event.id)), look(str(ctx.event.id)))

    event_ids = [stored.record("test.done") for _ in range(5)]
    one = serve(handling(work))
    ends = threading.Semaphore(0)
    one.begin(one.claim([Doorbell(each, 1) for each in event_ids]), ends.release)
    for _ in event_ids:
        assert ends.acquire(timeout=30)

    assert seen == {str(each): {str(each)} for each in event_ids}


def test_a_context_variable_of_one_attempt_is_not_seen_by_the_next(serve: Any, stored: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def work(data: Any, ctx: Context) -> str:  # noqa: ARG001
        before = variable.get()
        variable.set("set")
        return before

    one = serve(handling(work))
    for _ in range(2):
        event_id = stored.record("test.done")
        one.execute(event_id, 1)
        assert stored.log(event_id)[0].result == "unset"


def test_its_session_is_refused_with_the_remedy(serve: Any, stored: Any) -> None:
    async def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.session.flush()

    event_id = stored.record("test.done")
    serve(handling(work)).execute(event_id, 1)

    assert "declare the handler with def" in stored.error(event_id).message


def test_its_steps_are_refused_with_their_place_and_the_remedy(serve: Any, stored: Any) -> None:
    async def work(data: Any, ctx: Context) -> None:
        if data == "step":
            ctx.step("charge", lambda: None)
        ctx.sleep("1 day")

    one, line = serve(handling(work)), work.__code__.co_firstlineno
    for data, at in (("step", line + 2), ("sleep", line + 3)):
        event_id = stored.record("test.done", data=data)
        one.execute(event_id, 1)

        message = stored.error(event_id).message
        assert message.startswith(f"{__file__}:{at}: an async def handler has no ctx.step and no ctx.sleep")
        assert "Declare the handler with def and transactional=False" in message


def test_a_coroutine_whose_time_is_up_is_cancelled_and_has_timed_out(serve: Any, stored: Any) -> None:
    cancelled: list[bool] = []

    async def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.append(ctx.cancelled)

    event_id = stored.record("test.done")
    serve(handling(work, timeout=0.3)).execute(event_id, 1)

    assert (stored.state(event_id), stored.error(event_id).error_type, cancelled) == ("failed", "timeout", [True])


def test_what_a_cancelled_coroutine_still_returns_counts(serve: Any, stored: Any) -> None:
    async def work(data: Any, ctx: Context) -> str:  # noqa: ARG001
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return "done after all"

    event_id = stored.record("test.done")
    serve(handling(work, timeout=0.3)).execute(event_id, 1)

    assert (stored.state(event_id), stored.log(event_id)[0].result) == ("processed", "done after all")


def test_a_lease_is_kept_while_the_loop_is_blocked(serve: Any, stored: Any, eventually: Eventually) -> None:
    may_end, has_begun = threading.Event(), threading.Event()

    async def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        has_begun.set()
        may_end.wait(60)

    event_id = stored.record("test.done")
    one = serve(handling(work), lease_seconds=1)
    ended = threading.Event()
    try:
        one.begin(one.claim([Doorbell(event_id, 1)]), ended.set)
        assert has_begun.wait(30)
        first = stored.row(event_id).lease_expires_at
        eventually(lambda: (stored.row(event_id).lease_expires_at - first).total_seconds() > 2)
    finally:
        may_end.set()
    assert ended.wait(30)
    assert stored.state(event_id) == "processed"


def test_a_coroutine_whose_lease_is_lost_is_cancelled_and_settles_nothing(serve: Any, stored: Any) -> None:
    has_begun, cancelled = threading.Event(), threading.Event()

    async def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.emit("made", None)
        has_begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    event_id = stored.record("test.done")
    one = serve(handling(work), lease_seconds=3)
    ended = threading.Event()
    one.begin(one.claim([Doorbell(event_id, 1)]), ended.set)
    assert has_begun.wait(30)

    stored.take_away(event_id)

    assert ended.wait(30)
    assert cancelled.is_set()
    row = stored.row(event_id)
    assert (row.state, row.lease_owner, stored.scalar(CHILDREN)) == ("processing", "other", 0)


def test_an_event_that_was_settled_before_does_not_run_again(serve: Any, stored: Any) -> None:
    calls: list[int] = []

    async def work(data: Any, ctx: Context) -> None:  # noqa: ARG001
        calls.append(1)

    event_id = stored.record("test.done")
    one = serve(handling(work))
    one.execute(event_id, 1)
    stored.run(
        "UPDATE processing_state SET state = 'queued', finished_at = NULL, available_at = now() - interval '1 s'"
    )

    one.execute(event_id, stored.row(event_id).version)

    assert (calls, stored.state(event_id)) == ([1], "processed")


def test_a_process_that_a_coroutine_forks_ends_when_it_comes_back_or_awaits(serve: Any, stored: Any) -> None:
    async def work(awaits: bool, ctx: Context) -> int:  # noqa: ARG001
        pid = os.fork()
        if pid == 0:
            if awaits:
                await asyncio.sleep(0)
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222

    one = serve(handling(work))
    for awaits in (False, True):
        event_id = stored.record("test.done", awaits)
        one.execute(event_id, 1)
        assert [each.result for each in stored.log(event_id)] == [70]


def test_a_task_that_ends_the_loop_ends_nothing_else(serve: Any, stored: Any) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def work(data: Any, ctx: Context) -> str:  # noqa: ARG001
        left = asyncio.ensure_future(leave())
        await asyncio.wait([left])
        return type(left.exception()).__name__

    one = serve(handling(work))
    for _ in range(2):
        event_id = stored.record("test.done")
        one.execute(event_id, 1)
        assert stored.log(event_id)[0].result == "SystemExit"


def test_an_ordinary_function_that_returns_a_coroutine_says_what_to_write(executor: Any, stored: Any) -> None:
    async def work() -> None: ...

    event_id = stored.record("test.done")
    executor(handling(lambda data, ctx: work(), transactional=False)).execute(event_id, 1)  # noqa: ARG005

    assert "async def" in stored.error(event_id).message


async def coroutine(data: Any, ctx: Context) -> None: ...


async def list_taking(data: list[int], ctx: BatchContext) -> None: ...


async def generator(data: Any, ctx: Context) -> Any:  # noqa: ARG001
    yield data


@pytest.mark.parametrize(
    ("function", "options", "remedy"),
    [
        (coroutine, {"transactional": True}, "leave out transactional=True"),
        (coroutine, {"batch": 5}, "leave out batch"),
        (list_taking, {"batch": 5}, "def"),
        (generator, {}, "leave out 'yield'"),
    ],
)
def test_what_a_coroutine_cannot_be_is_refused_where_it_stands(
    function: Any, options: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"test_async.py:\d+.*{remedy}"):
        handling(function, **options)


def test_it_needs_no_word_about_its_transaction() -> None:
    for options in ({}, {"transactional": False}):
        handler = handling(coroutine, **options).find("test.done")
        assert handler is not None
        assert (handler.is_async, handler.is_transactional) == (True, False)


def test_what_is_around_coroutines_awaits_them(serve: Any, stored: Any) -> None:
    seen: list[str] = []

    async def work(data: Any, ctx: Context) -> str:  # noqa: ARG001
        await asyncio.sleep(0)
        seen.append("handler")
        return "done"

    handlers = handling(work)

    @handlers.around
    async def outer(attempt: Attempt, call: Callable[[], Any]) -> Any:
        seen.append(f"before {attempt.handler}")
        result = await call()
        seen.append("after")
        return [result]

    @handlers.around
    def plain(attempt: Attempt, call: Callable[[], Any]) -> Any:  # noqa: ARG001
        seen.append("plain")
        return call()

    event_id = stored.record("test.done")
    serve(handlers).execute(event_id, 1)

    assert seen == ["before handler", "handler", "after"]
    assert stored.log(event_id)[0].result == ["done"]


@pytest.mark.parametrize("calls", [0, 2])
def test_what_is_around_a_coroutine_calls_it_once(serve: Any, stored: Any, calls: int) -> None:
    handlers = handling(coroutine)

    @handlers.around
    async def other(attempt: Attempt, call: Callable[[], Any]) -> None:  # noqa: ARG001
        for _ in range(calls):
            await call()

    event_id = stored.record("test.done")
    serve(handlers).execute(event_id, 1)

    assert (stored.state(event_id), "await call()" in stored.error(event_id).message) == ("failed", True)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_would_run_without_what_is_around_the_others_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_async: bool
) -> None:
    kinds = ("def", "async def")
    (tmp_path / f"around_{is_async}.py").write_text(f"""
from holdfast.processor import Handlers
handlers = Handlers()
@handlers.on("a", name="one")
{kinds[not is_async]} one(data, ctx): ...
@handlers.around
{kinds[is_async]} tenant(attempt, call): ...
""")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(
        ConfigurationError, match=rf"around_{is_async}.py:6: .* not around one at .*py:4.*'{kinds[not is_async]} around"
    ):
        discover(f"around_{is_async}:handlers")


# ── as processes ─────────────────────────────────────────────────────────────────────────────────────────────────


def ring_for(stored: Any, live: Any, type_: str, count: int, data: Any) -> list[UUID]:
    event_ids = [stored.record(type_, data) for _ in range(count)]
    live.ring(*((each, 1) for each in event_ids))
    return event_ids


def test_events_that_await_need_no_threads(start: Start, stored: Any, live: Any, eventually: Eventually) -> None:
    worker = start(HANDLERS=HANDLERS, PROCESSOR_THREADS="4", ASYNC_CONCURRENCY="100")
    began = time.monotonic()

    event_ids = ring_for(stored, live, "async.wait", 200, 0.5)

    eventually(lambda: stored.count("processed", "async.wait") == 200, timeout_seconds=60)
    assert time.monotonic() - began < 15, "one after the other in four threads it would be 25 s, and 100 s in one"
    eventually(lambda: stored.count("processed", "test.done") == 200, timeout_seconds=60)
    assert stored.scalar(DOUBLED) == 0
    assert {stored.row(each).attempt for each in event_ids} == {1}
    threads = len(list(Path(f"/proc/{worker.pid_of_worker()}/task").iterdir()))
    assert threads < 40, "200 events, and no thread for any of them"


def test_no_more_than_are_allowed_are_at_work_at_once(
    start: Start, stored: Any, live: Any, eventually: Eventually, tmp_path: Path
) -> None:
    worker = start(HANDLERS=HANDLERS, PROCESSOR_THREADS="4", ASYNC_CONCURRENCY="5")
    gate = tmp_path / "gate"
    ring_for(stored, live, "async.until", 30, str(gate))
    eventually(lambda: "holdfast_async_running 5.0" in worker.get("/metrics")[1])

    [plain] = ring_for(stored, live, "sync.effect", 1, None)

    eventually(lambda: stored.state(plain) == "processed", message="a full loop keeps no others from their threads")
    eventually(lambda: stored.count("processing", "async.until") == 5, message="more are not claimed for long")
    assert stored.count("processed", "async.until") == 0
    gate.touch()
    eventually(lambda: stored.count("processed", "async.until") == 30, timeout_seconds=60)


def test_a_killed_process_loses_and_doubles_nothing(
    start: Start, stored: Any, live: Any, eventually: Eventually
) -> None:
    settings = {"HANDLERS": HANDLERS, "PROCESSOR_THREADS": "4", "LEASE_SECONDS": "5", "ASYNC_CONCURRENCY": "50"}
    worker = start(**settings)
    ring_for(stored, live, "async.wait", 100, 0.3)
    eventually(lambda: 0 < stored.count("processed", "async.wait") < 100)

    os.kill(worker.pid_of_worker(), signal.SIGKILL)

    eventually(lambda: stored.count("processed", "async.wait") == 100, timeout_seconds=120)
    eventually(lambda: stored.count("processed", "test.done") == 100, timeout_seconds=60)
    assert stored.scalar(DOUBLED) == 0
    assert stored.scalar("SELECT max(crashes) FROM processing_state WHERE state = 'processed'") == 1


def test_a_coroutine_is_cancelled_when_its_time_is_up(
    start: Start, stored: Any, live: Any, eventually: Eventually, tmp_path: Path
) -> None:
    start(HANDLERS=HANDLERS)
    [event_id] = ring_for(stored, live, "async.late", 1, str(tmp_path / "cleaned"))

    eventually(lambda: stored.state(event_id) == "dead")

    assert stored.error(event_id).error_type == "timeout"
    assert (tmp_path / "cleaned").exists(), "it could tidy up"


def test_a_process_stops_in_order_and_gives_back_what_awaits(
    start: Start, stored: Any, live: Any, eventually: Eventually, tmp_path: Path
) -> None:
    worker = start(HANDLERS=HANDLERS, SHUTDOWN_SECONDS="12")
    waiting = ring_for(stored, live, "async.until", 20, str(tmp_path / "never"))
    eventually(lambda: stored.count("processing") == 20)
    quick = ring_for(stored, live, "async.wait", 5, 1.0)
    eventually(lambda: stored.count("processing") == 25)

    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(30) == 0, "within its grace"
    assert {stored.state(each) for each in quick} == {"processed"}, "what ends within the grace ends by itself"
    assert {(stored.state(each), stored.row(each).attempt, stored.row(each).crashes) for each in waiting} == {
        ("queued", 0, 0)
    }


def test_plain_handlers_go_on_beside_a_blocked_loop_which_is_told_of(
    start: Start, stored: Any, live: Any, eventually: Eventually, tmp_path: Path
) -> None:
    worker = start(HANDLERS=HANDLERS, PROCESSOR_THREADS="2", LEASE_SECONDS="5")
    gate = tmp_path / "gate"
    [culprit] = ring_for(stored, live, "async.blocking", 1, str(gate))
    eventually(lambda: worker.has_logged("blocks"))
    waiting = ring_for(stored, live, "async.wait", 3, 0.0)
    plain = ring_for(stored, live, "sync.effect", 20, None)

    eventually(lambda: all(stored.state(each) == "processed" for each in plain), timeout_seconds=20)
    eventually(
        lambda: worker.has_logged("a handler blocks the event loop; every other async def handler of the process waits")
    )
    [line] = [each for each in worker.lines() if each["message"].startswith("a handler blocks the event loop")]
    assert (line["handler"], line["event_id"], "in blocking" in line["place"]) == ("blocking", str(culprit), True)
    assert {stored.state(each) for each in waiting} == {"processing"}
    gate.touch()
    eventually(lambda: all(stored.state(each) == "processed" for each in waiting))
    eventually(lambda: stored.state(culprit) in ("processed", "dead"))
    assert {stored.row(each).crashes for each in (culprit, *waiting)} == {0}


@pytest.mark.parametrize("type_", ["async.deaf", "async.blocking"])
def test_a_coroutine_that_nothing_ends_has_its_process_replaced(
    start: Start, stored: Any, live: Any, eventually: Eventually, tmp_path: Path, type_: str
) -> None:
    worker = start(HANDLERS=HANDLERS)
    pid = worker.pid_of_worker()
    [stuck] = ring_for(stored, live, type_, 1, str(tmp_path / "never"))
    eventually(lambda: stored.state(stuck) == "processing")
    beside = ring_for(stored, live, "async.until", 3, str(tmp_path / "gate"))

    eventually(lambda: stored.state(stuck) == "dead", timeout_seconds=60, message="its attempt has timed out")

    assert stored.error(stuck).error_type == "timeout"
    eventually(lambda: worker.pid_of_worker() != pid, timeout_seconds=30)
    (tmp_path / "gate").touch()
    eventually(lambda: all(stored.state(each) == "processed" for each in beside), timeout_seconds=60)
    assert {(stored.row(each).attempt, stored.row(each).crashes) for each in beside} == {(1, 0)}, "given back"
