"""Handlers for worker processes (``HOLDFAST_HANDLERS=sample_handlers:handlers``).

Their table ``effect`` has no constraint that could hide a doublet.
"""

import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from dramatiq.threading import raise_thread_exception
from prometheus_client import Gauge
from pydantic import BaseModel
from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers, Reject, Retry

handlers = Handlers()

LOCK = 4242
"""The advisory lock that ``test.blocked`` waits for."""

at_work = Gauge("test_at_work", "Attempts at test.endless that run", multiprocess_mode="livesum")

AT_ONCE = Backoff(first=0, cap=0, attempts=3)


class Order(BaseModel):
    order_id: str
    amount: int


def leave_effect(ctx: Context) -> None:
    """One row for each time that a handler's effects are committed."""
    ctx.session.execute(
        text("INSERT INTO effect VALUES (:id, :note)"), {"id": ctx.event.id, "note": f"attempt {ctx.attempt}"}
    )


@handlers.on("test.order", name="order")
def order(payload: Order, ctx: Context) -> dict[str, Any]:
    leave_effect(ctx)
    ctx.progress(0.5, "half")
    return {"amount": payload.amount}


@handlers.on("test.nothing", name="nothing")
def nothing(data: Any, ctx: Context) -> None:
    """Leave no effect, and ask for no session."""


@handlers.on("test.chain", name="chain")
def chain(left: int, ctx: Context) -> None:
    """Make another one, until none is left."""
    if left:
        ctx.emit("test.chain", left - 1)


@handlers.on("test.batched", name="batched", batch=50)
def batched(data: Any, ctx: Context) -> None:
    leave_effect(ctx)
    if data == "blocks":
        ctx.session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": LOCK})


@handlers.on("test.blocked", name="blocked", retry=AT_ONCE)
def blocked(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)
    ctx.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


@handlers.on("test.endless", name="endless")
@at_work.track_inprogress()
def endless(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)
    ctx.log.info("at work")
    while True:
        time.sleep(0.01)


@handlers.on("test.failing", name="failing", retry=Backoff(first=0.2, factor=1, cap=0.2, attempts=3))
def failing(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)
    raise ConnectionError("the other side is away")


@handlers.on("test.later", name="later", retry=Backoff(first=0, cap=0, attempts=2))
def later(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)
    if ctx.attempt == 1:
        raise Retry("not yet", after=1)


@handlers.on("test.rejected", name="rejected")
def rejected(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)
    raise Reject("never", code="no_such_account")


@handlers.on("test.fatal", name="fatal")
def fatal(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Takes its process along, as a fault in a C library or the OOM killer would."""
    leave_effect(ctx)
    os._exit(3)


@handlers.on("test.deadly", name="deadly")
def deadly(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Ends the thread that it ran on, a little later."""
    thread = threading.get_ident()
    threading.Timer(0.3, raise_thread_exception, (thread, SystemExit)).start()


@handlers.on("test.stepwise", name="stepwise", transactional=False)
def stepwise(data: Any, ctx: Context) -> list[int]:
    """Write a line into a file in each of three steps, and wait after each while a file says so."""
    directory = Path(data)

    def charge(number: int) -> int:
        with (directory / "charges").open("a") as file:
            file.write(f"{number}\n")
        _wait_while(directory / f"hold-in-{number}")
        return number

    charged = []
    for number in (1, 2, 3):
        charged.append(ctx.step(f"charge-{number}", partial(charge, number)))
        _wait_while(directory / f"hold-after-{number}")
    return charged


def _wait_while(path: Path) -> None:
    while path.exists():
        path.with_suffix(".reached").touch()
        time.sleep(0.01)


_entering = threading.Lock()
_inside = 0


@handlers.on("test.crowded", name="crowded")
def crowded(data: Any, ctx: Context) -> dict[str, int]:  # noqa: ARG001
    """Returns how many of its kind ran at once in this process."""
    global _inside
    with _entering:
        _inside += 1
        seen = _inside
    time.sleep(0.02)
    with _entering:
        _inside -= 1
    return {"at_once": seen}


@handlers.on("test.slow", name="slow")
def slow(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)
    time.sleep(0.3)
