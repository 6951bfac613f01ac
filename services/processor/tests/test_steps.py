"""Steps of handlers without a transaction: done once, whatever becomes of the attempts; and sleeps between them."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from holdfast.domain.transitions import replay
from holdfast.local.fixtures import Eventually
from holdfast.processor import Backoff, Context, Handlers, Reject
from holdfast.processor.attempt.results import MAX_RESULT_BYTES
from holdfast.runtime import logging
from holdfast.runtime.telemetry import Log
from holdfast.storage import lifecycle
from holdfast.storage.steps import MOST_STEPS

MakeExecutor = Callable[..., Any]
Start = Callable[..., Any]


class Bank:
    """The other side of steps; every charge is kept."""

    def __init__(self) -> None:
        self.charges: list[str] = []

    def charge(self, name: str) -> dict[str, Any]:
        self.charges.append(name)
        return {"charge": name, "number": len(self.charges)}


@pytest.fixture
def bank() -> Bank:
    return Bank()


def handling(function: Callable[..., Any], **options: Any) -> Handlers:
    handlers = Handlers()
    options = dict[str, Any](transactional=False, retry=Backoff(first=0, cap=0, attempts=3)) | options
    handlers.on("test.done", name="handler", **options)(function)
    return handlers


def run_again(stored: Any, one: Any, event_id: UUID) -> Any:
    """The next attempt, whenever it is due; the row after it."""
    stored.make_due()
    one.execute(event_id, stored.row(event_id).version)
    return stored.row(event_id)


def names(stored: Any, event_id: UUID) -> list[str]:
    return [row.name for row in stored.rows("SELECT name FROM event_step WHERE event_id = :id ORDER BY name", event_id)]


def lines(directory: Path) -> list[str]:
    file = directory / "charges"
    return file.read_text().split() if file.exists() else []


def test_a_step_is_done_once_whatever_becomes_of_the_attempts(stored: Any, executor: MakeExecutor, bank: Bank) -> None:
    seen: list[Any] = []

    def pay(data: Any, ctx: Context) -> Any:  # noqa: ARG001
        paid = ctx.step("charge", lambda: (bank.charge("first"), "é", 1e22))
        seen.append(paid)
        if ctx.attempt == 1:
            raise ConnectionError("away")
        return ctx.step("second", lambda: bank.charge("second"))

    event_id = stored.record("test.done")
    one = executor(handling(pay))
    one.execute(event_id, 1)
    assert stored.state(event_id) == "failed"

    row = run_again(stored, one, event_id)

    assert (row.state, row.attempt, bank.charges) == ("processed", 2, ["first", "second"])
    assert seen == [[{"charge": "first", "number": 1}, "é", 1e22]] * 2, "and a first attempt gets what later ones get"
    assert isinstance(seen[1][2], float), "numbers stay what they were"


def test_a_step_that_fails_is_not_stored_and_may_be_done_again_in_its_attempt(
    stored: Any, executor: MakeExecutor, bank: Bank
) -> None:
    def pay(data: Any, ctx: Context) -> Any:  # noqa: ARG001
        with pytest.raises(ZeroDivisionError):
            ctx.step("charge", lambda: 1 / 0)
        return ctx.step("charge", lambda: bank.charge("once"))

    event_id = stored.record("test.done")

    executor(handling(pay)).execute(event_id, 1)

    assert (stored.state(event_id), bank.charges) == ("processed", ["once"])


def test_two_steps_of_one_name_are_refused_before_the_second_is_done(
    stored: Any, executor: MakeExecutor, bank: Bank
) -> None:
    def pay(data: Any, ctx: Context) -> None:  # noqa: ARG001
        for _ in range(2):
            ctx.step("charge", lambda: bank.charge("a"))

    event_id = stored.record("test.done")

    executor(handling(pay)).execute(event_id, 1)

    assert stored.state(event_id) == "failed"
    assert 'f"charge-{number}"' in stored.error(event_id).message
    assert bank.charges == ["a"]


@pytest.mark.parametrize("name", ["", "x" * 101, "a\x00b", "a\nb", None, 7, "\ud800"])
def test_a_name_is_a_short_text(stored: Any, executor: MakeExecutor, bank: Bank, name: Any) -> None:
    event_id = stored.record("test.done")

    executor(handling(lambda data, ctx: ctx.step(name, lambda: bank.charge("a")))).execute(event_id, 1)  # noqa: ARG005

    assert "1 to 100 printable characters" in stored.error(event_id).message
    assert bank.charges == []


@pytest.mark.parametrize("result", [object(), float("nan"), "a\x00b", "x" * MAX_RESULT_BYTES])
def test_a_result_that_cannot_be_stored_makes_the_event_dead(stored: Any, executor: MakeExecutor, result: Any) -> None:
    event_id = stored.record("test.done")

    executor(handling(lambda data, ctx: ctx.step("charge", lambda: result))).execute(event_id, 1)  # noqa: ARG005

    assert (stored.state(event_id), stored.error(event_id).error_type) == ("dead", "invalid_result")
    assert "the step 'charge'" in stored.error(event_id).message
    assert names(stored, event_id) == []


def test_an_event_has_a_bounded_number_of_steps(stored: Any, executor: MakeExecutor, bank: Bank) -> None:
    event_id = stored.record("test.done")
    stored.run(
        "INSERT INTO event_step (event_id, handler, name, lease_token, attempt, result, duration_ms) SELECT"  # noqa: S608
        f" '{event_id}', 'handler', 'old-' || n, gen_random_uuid(), 1, '1', 0 FROM generate_series(1, {MOST_STEPS}) n"
    )

    executor(handling(lambda data, ctx: ctx.step("more", lambda: bank.charge("a")))).execute(event_id, 1)  # noqa: ARG005

    assert f"at most {MOST_STEPS} steps" in stored.error(event_id).message
    assert bank.charges == []


@pytest.mark.parametrize("call", [lambda ctx: ctx.step("a", list), lambda ctx: ctx.sleep(1)])
def test_a_transactional_handler_has_no_steps(stored: Any, executor: MakeExecutor, call: Callable[..., Any]) -> None:
    event_id = stored.record("test.done")

    executor(handling(lambda data, ctx: call(ctx), transactional=True)).execute(event_id, 1)  # noqa: ARG005

    assert "transactional=False" in stored.error(event_id).message


def test_a_worker_whose_lease_is_gone_stores_nothing_and_stops(stored: Any, executor: MakeExecutor, bank: Bank) -> None:
    after: list[str] = []

    def pay(data: Any, ctx: Context) -> None:  # noqa: ARG001
        try:
            ctx.step("charge", lambda: (bank.charge("late"), stored.take_away(ctx.event.id))[0])
        except BaseException:  # noqa: BLE001 (as a handler must not)
            after.append("went on")
        ctx.step("second", lambda: bank.charge("second"))

    event_id = stored.record("test.done")

    executor(handling(pay)).execute(event_id, 1)

    assert (after, bank.charges) == (["went on"], ["late"]), "no step follows one that the lease did not cover"
    assert names(stored, event_id) == []
    assert (stored.state(event_id), stored.row(event_id).lease_owner) == ("processing", "other")


def test_a_sleep_gives_the_thread_back_and_a_later_attempt_goes_on_past_it(
    stored: Any, executor: MakeExecutor, bank: Bank
) -> None:
    def pay(data: Any, ctx: Context) -> Any:  # noqa: ARG001
        ctx.step("charge", lambda: bank.charge("first"))
        ctx.sleep("1 day")
        return ctx.step("remind", lambda: bank.charge("second"))

    event_id = stored.record("test.done")
    one = executor(handling(pay, retry=Backoff(attempts=1)))
    one.execute(event_id, 1)

    row = stored.row(event_id)
    assert (row.state, row.attempt, row.last_error, stored.errors(event_id)) == ("queued", 0, None, [])
    assert 86390 < row.due_in <= 86400
    detail = "SELECT detail ->> 'reason' FROM event_update ORDER BY version DESC LIMIT 1"
    assert stored.scalar(detail) == "sleeping"
    wake_at = stored.scalar("SELECT wake_at FROM event_step WHERE wake_at IS NOT NULL")

    early = run_again(stored, one, event_id)
    assert (early.state, early.attempt) == ("queued", 0), "it was taken too early, and sleeps for the rest"
    assert abs((early.available_at - wake_at).total_seconds()) < 1, "the time counts from the first attempt that slept"

    stored.run("UPDATE event_step SET wake_at = now() - interval '1 s' WHERE wake_at IS NOT NULL")
    assert run_again(stored, one, event_id).state == "processed"
    assert bank.charges == ["first", "second"]


@pytest.mark.parametrize("then", ["returns", "raises"])
def test_a_handler_that_swallows_a_sleep_sleeps_all_the_same_and_is_told(
    stored: Any, executor: MakeExecutor, bank: Bank, then: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def stubborn(data: Any, ctx: Context) -> None:  # noqa: ARG001
        for _ in range(2):
            with contextlib.suppress(BaseException):  # as a handler must not
                ctx.sleep(3600)
                ctx.step("charge", lambda: bank.charge("too early"))
        if then == "raises":
            raise Reject("no")

    logging.configure(service="test", version="0", log_format="json")
    event_id = stored.record("test.done")

    executor(handling(stubborn)).execute(event_id, 1)

    row = stored.row(event_id)
    assert (row.state, row.attempt, bank.charges) == ("queued", 0, [])
    assert row.due_in > 3590
    assert Log.SLEEP_NOT_LET_OUT in capsys.readouterr().out


@pytest.mark.parametrize("duration", [90, timedelta(seconds=90), "90 s", "1 min 30 s", "1.5 minutes"])
def test_a_sleep_takes_seconds_a_timedelta_or_words(stored: Any, executor: MakeExecutor, duration: Any) -> None:
    event_id = stored.record("test.done")

    executor(handling(lambda data, ctx: ctx.sleep(duration))).execute(event_id, 1)  # noqa: ARG005

    assert 80 < stored.row(event_id).due_in <= 90


@pytest.mark.parametrize("duration", [-1, float("nan"), None, True, "soon", "1 month", "", "5", "1 day and"])
def test_a_sleep_of_anything_else_is_refused(stored: Any, executor: MakeExecutor, duration: Any) -> None:
    event_id = stored.record("test.done")

    executor(handling(lambda data, ctx: ctx.sleep(duration))).execute(event_id, 1)  # noqa: ARG005

    assert "such as '1 day'" in stored.error(event_id).message


def test_a_replay_of_a_dead_event_keeps_its_steps(stored: Any, executor: MakeExecutor, bank: Bank) -> None:
    is_mended = threading.Event()

    def pay(data: Any, ctx: Context) -> None:  # noqa: ARG001
        ctx.step("charge", lambda: bank.charge("first"))
        if not is_mended.is_set():
            raise Reject("broken")

    event_id = stored.record("test.done")
    one = executor(handling(pay))
    one.execute(event_id, 1)
    assert stored.state(event_id) == "dead"
    is_mended.set()
    with stored.database.transaction() as session:
        assert lifecycle.apply(session, [replay(event_id)])

    assert run_again(stored, one, event_id).state == "processed"
    assert bank.charges == ["first"]


def test_steps_go_with_their_event(stored: Any, executor: MakeExecutor, bank: Bank) -> None:
    event_id = stored.record("test.done")
    executor(handling(lambda data, ctx: ctx.step("a", lambda: bank.charge("a")))).execute(event_id, 1)  # noqa: ARG005
    assert names(stored, event_id) == ["a"]

    stored.run(f"DELETE FROM event WHERE id = '{event_id}'")  # noqa: S608

    assert names(stored, event_id) == []


def test_steps_in_threads_of_a_handler_are_stored(stored: Any, executor: MakeExecutor, bank: Bank) -> None:
    def pay(data: Any, ctx: Context) -> Any:  # noqa: ARG001
        with ThreadPoolExecutor(4) as pool:
            done = pool.map(lambda number: ctx.step(f"charge-{number}", lambda: bank.charge(str(number))), range(8))
            return len(list(done))

    event_id = stored.record("test.done")

    executor(handling(pay)).execute(event_id, 1)

    assert (stored.state(event_id), len(names(stored, event_id))) == ("processed", 8)


def test_what_a_step_did_happens_once_however_often_its_worker_is_killed(
    start: Start, stored: Any, live: Any, eventually: Eventually, tmp_path: Path
) -> None:
    event_id = stored.record("test.stepwise", str(tmp_path))
    for number in (1, 2):
        (tmp_path / f"hold-after-{number}").touch()
    for number in (1, 2):
        worker = start()
        live.ring((event_id, stored.row(event_id).version))
        if number == 2:
            (tmp_path / "hold-after-1").unlink()
        eventually((tmp_path / f"hold-after-{number}.reached").exists, timeout_seconds=60)
        worker.kill()
        assert len(stored.recover()) == 1, "the worker was lost between a step and the end of its attempt"
    (tmp_path / "hold-after-2").unlink()
    start()
    eventually(lambda: stored.state(event_id) == "processed", timeout_seconds=60)

    assert lines(tmp_path) == ["1", "2", "3"]
    assert (stored.log(event_id)[0].result, stored.row(event_id).crashes) == ([1, 2, 3], 2)


def test_a_step_whose_worker_is_killed_before_it_is_stored_is_done_again(
    start: Start, stored: Any, live: Any, eventually: Eventually, tmp_path: Path
) -> None:
    (tmp_path / "hold-in-2").touch()
    event_id = stored.record("test.stepwise", str(tmp_path))
    worker = start()
    live.ring((event_id, 1))
    eventually((tmp_path / "hold-in-2.reached").exists, timeout_seconds=60)
    worker.kill()
    (tmp_path / "hold-in-2").unlink()
    stored.recover()
    start()
    eventually(lambda: stored.state(event_id) == "processed", timeout_seconds=60)

    assert lines(tmp_path) == ["1", "2", "2", "3"], (
        "at least once: only the other side can tell, by its idempotency key"
    )


def test_a_frozen_worker_that_wakes_after_its_lease_stores_nothing(
    start: Start, stored: Any, live: Any, eventually: Eventually, tmp_path: Path
) -> None:
    (tmp_path / "hold-in-2").touch()
    event_id = stored.record("test.stepwise", str(tmp_path))
    worker = start()
    live.ring((event_id, 1))
    eventually((tmp_path / "hold-in-2.reached").exists, timeout_seconds=60)
    frozen = worker.pid_of_worker()
    os.kill(frozen, signal.SIGSTOP)
    stored.take_away(event_id)
    (tmp_path / "hold-in-2").unlink()
    os.kill(frozen, signal.SIGCONT)
    eventually(lambda: worker.has_logged("lease lost"), timeout_seconds=60)

    assert names(stored, event_id) == ["charge-1"]
    assert lines(tmp_path) == ["1", "2"], "and it did not go on to the third"
