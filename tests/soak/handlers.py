"""What the events of a soak do. The tables ``effect`` and ``call`` have no constraint that could hide a doublet.

Each handler returns its attempt, so that the processed-event log tells whose result was settled. Retries are quick and many:
attempts that end with PostgreSQL's crash count, and hundreds of crashes must not use an event's attempts up.
"""

import contextlib
import multiprocessing
import os
import time
from typing import Any

import psycopg2
from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers, Reject

handlers = Handlers()

QUICK = Backoff(first=0.3, factor=2, cap=2, attempts=50)


@handlers.on("soak.plain", name="plain", retry=QUICK)
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
    url = os.environ["HOLDFAST_DATABASE_URL"]
    durable = "-c synchronous_commit=on"  # whatever the database's default is: the other service forgets no call
    with (
        contextlib.closing(psycopg2.connect(url, options=durable)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("INSERT INTO call (event_id, key) VALUES (%s, %s)", [str(ctx.event.id), ctx.idempotency_key])
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
