"""What the events of a soak do. The tables ``effect`` and ``call`` have no constraint that could hide a doublet.

Each handler returns its attempt, so that the processed-event log tells whose result was settled. Retries are quick and many:
attempts that end with PostgreSQL's crash count, and hundreds of crashes must not use an event's attempts up.
"""

import asyncio
import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
from sqlalchemy import text

from holdfast.processor import Backoff, Concurrency, Context, Handlers, Rate, Reject, Snooze

handlers = Handlers()

QUICK = Backoff(first=0.3, factor=2, cap=2, attempts=50)

handlers.every(
    "* * * * *", name="tick", type="soak.tick", tenant="demo", data={"number": 0}, audience="user-0", missed="all"
)


@handlers.on("soak.plain", "soak.later", "soak.tick", name="plain", retry=QUICK)
@handlers.on("soak.child", "soak.debounced", "soak.unique", name="made", retry=QUICK, priority=7)
def plain(data: dict[str, Any], ctx: Context) -> dict[str, Any]:  # noqa: ARG001
    """Leaves an effect."""
    return _effect(ctx)


@handlers.on("soak.slow", name="slow", retry=QUICK)
def slow(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Leaves an effect, and takes ``seconds`` over it, telling its progress."""
    result = _effect(ctx)
    for step in range(1, 4):
        time.sleep(data["seconds"] / 3)
        ctx.progress(step / 3)
    return result


@handlers.on("soak.flaky", name="flaky", retry=QUICK)
def flaky(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Leaves an effect and fails after it, ``fails`` times; then works."""
    result = _effect(ctx)
    if ctx.attempt <= data["fails"]:
        raise RuntimeError("not yet")
    return result


@handlers.on("soak.ordered", name="ordered", retry=QUICK, ordering="subject")
def ordered(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Leaves an effect in its subject's order; the first attempt fails for some."""
    if ctx.attempt == 1 and data["fails"] == 1:
        raise RuntimeError("not yet")
    return _effect(ctx)


@handlers.on("soak.outside", name="outside", retry=QUICK, transactional=False)
def outside(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Calls another service, which is a table written to through a connection of its own, and takes time over it.

    Does not look at ``ctx.cancelled``: what a worker that was taken for lost still does must be refused all the same.
    """
    _call(ctx)
    time.sleep(data["seconds"])
    return {"attempt": ctx.attempt}


@handlers.on("soak.progress", name="progress", retry=QUICK, transactional=False)
def progress(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Tells its progress, for some longer than a grace, and does not look at ``ctx.cancelled``."""
    began, seconds = time.monotonic(), _long(data)
    while (spent := time.monotonic() - began) < seconds:
        ctx.progress(spent / seconds)
        time.sleep(0.2)
    return {"attempt": ctx.attempt}


@handlers.on("soak.pool", name="pool", retry=QUICK, transactional=False)
def pool(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Forks a pool and waits in it for as long: no exception reaches it there."""
    with multiprocessing.get_context("fork").Pool(2) as forked:
        forked.map(time.sleep, [_long(data)] * 2)
    return {"attempt": ctx.attempt}


@handlers.on("soak.poison", name="poison", retry=QUICK)
def poison(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Leaves an effect and rejects the event after it."""
    _effect(ctx)
    raise Reject("this event can not be processed", code="poison")


@handlers.on("soak.snooze", name="snooze", retry=QUICK)
def snooze(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Leaves an effect, and puts the event off until its time has come: what was written is rolled back."""
    result = _effect(ctx)
    if (left := data["until"] - time.time()) > 0:
        raise Snooze(min(left, 1.0))
    return result


@handlers.on("soak.parent", name="parent", retry=QUICK)
def parent(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Makes as many children as ``fails``."""
    for number in range(data["fails"]):
        ctx.emit("soak.child", {"number": number}, audience=ctx.event.audience)
    return _effect(ctx)


@handlers.on("soak.fan", name="fan", retry=QUICK)
def fan(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Makes a group of as many members as ``fails`` and one, the first of which is rejected."""
    members = [
        {"type": "soak.member", "data": {"is_bad": number == 0}, "audience": ctx.event.audience}
        for number in range(data["fails"] + 1)
    ]
    ctx.emit_group(members, then=("soak.joined", None), audience=ctx.event.audience)
    return _effect(ctx)


@handlers.on("soak.member", name="member", retry=QUICK)
def member(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Leaves an effect, or rejects the event after it."""
    result = _effect(ctx)
    if data["is_bad"]:
        raise Reject("this member can not be processed", code="bad_member")
    return result


@handlers.on("soak.joined", name="joined", retry=QUICK)
def joined(data: dict[str, Any], ctx: Context) -> dict[str, Any]:  # noqa: ARG001
    """Leaves an effect; the checker reads what the group counted."""
    return _effect(ctx)


@handlers.on("soak.shared", name="shared", retry=QUICK)
def shared(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """One of two handlers of its events: leaves an effect, and fails once after it for some."""
    return flaky(data | {"fails": data["fails"] - 2}, ctx)


@handlers.on("soak.shared", also=True, name="mirror", retry=QUICK)
def mirror(data: dict[str, Any], ctx: Context) -> dict[str, Any]:  # noqa: ARG001
    """The other one: leaves an effect of its own event."""
    return _effect(ctx)


@handlers.on("soak.limited", name="limited", retry=QUICK, limit=Concurrency(2))
def limited(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Notes its run and takes time over its effect; two may do so at once."""
    with _noted(ctx):
        time.sleep(data["seconds"] / 4)
        return _effect(ctx)


@handlers.on("soak.keyed", name="keyed", retry=QUICK, transactional=False, limit=Concurrency(1, key="subject"))
def keyed(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Notes its run and takes time over it; one of each subject may do so at once."""
    with _noted(ctx):
        time.sleep(data["seconds"] / 4)
        return {"attempt": ctx.attempt}


@handlers.on("soak.rated", name="rated", retry=QUICK, rate=Rate(2, per=2.0))
def rated(data: dict[str, Any], ctx: Context) -> dict[str, Any]:  # noqa: ARG001
    """Notes its run; two may start within two seconds."""
    with _noted(ctx):
        return _effect(ctx)


@handlers.on("soak.steps", name="steps", retry=QUICK, transactional=False)
def steps(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Calls another service in two steps with a sleep between them, and fails between the steps for some."""
    first = ctx.step("first", lambda: _step(ctx, "first"))
    if ctx.attempt < data["fails"]:
        raise RuntimeError("not yet")
    ctx.sleep(data["seconds"])
    second = ctx.step("second", lambda: _step(ctx, "second"))
    return {"attempt": ctx.attempt, "steps": [first, second]}


@handlers.on("soak.async", name="async", retry=QUICK)
async def coroutine(data: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Calls another service, and waits without a thread."""
    await asyncio.to_thread(_call, ctx)
    await asyncio.sleep(_long(data))
    return {"attempt": ctx.attempt}


def _step(ctx: Context, name: str) -> str:
    began = time.time()
    _write("INSERT INTO step_call VALUES (%s, %s, %s, to_timestamp(%s))", [str(ctx.event.id), name, ctx.attempt, began])
    return name


def _call(ctx: Context) -> None:
    _write("INSERT INTO call (event_id, key) VALUES (%s, %s)", [str(ctx.event.id), ctx.idempotency_key])


@contextlib.contextmanager
def _noted(ctx: Context) -> Iterator[None]:
    """Notes when a run began and ended, outside of its transaction; what was killed has begun and not ended."""
    began, run = time.time(), [str(ctx.event.id), ctx.attempt, os.getpid()]
    _write("INSERT INTO run VALUES (%s, %s, %s, to_timestamp(%s))", [*run, began])
    yield
    _write(
        "UPDATE run SET ended = clock_timestamp()"
        " WHERE event_id = %s AND attempt = %s AND pid = %s AND began = to_timestamp(%s)",
        [*run, began],
    )


def _write(statement: str, values: list[Any]) -> None:
    """Another service's commit, durable whatever the database's default is: that service forgets nothing."""
    url = os.environ["HOLDFAST_DATABASE_URL"]
    with (
        contextlib.closing(psycopg2.connect(url, options="-c synchronous_commit=on")) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement, values)


def _long(data: dict[str, Any]) -> float:
    """Seconds: longer than a grace for one event in four. If all were, one thread for suspects could not do them, since
    every kill makes suspects of those that run.
    """
    return float(3 * data["seconds"] if data["number"] % 4 == 0 else data["seconds"] / 2)


def _effect(ctx: Context) -> dict[str, Any]:
    ctx.session.execute(
        text("INSERT INTO effect (event_id, attempt) VALUES (:event_id, :attempt)"),
        {"event_id": str(ctx.event.id), "attempt": ctx.attempt},
    )
    return {"attempt": ctx.attempt}
