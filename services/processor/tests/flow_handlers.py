"""Handlers with limits, priorities and pools for worker processes (``HOLDFAST_HANDLERS=flow_handlers:handlers``).

Each writes when it began and ended, at once and outside of its transaction: what was killed has begun and not ended.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

from holdfast.processor import Backoff, Concurrency, Context, Handlers, Rate

handlers = Handlers()

AT_ONCE = Backoff(first=0, cap=0, attempts=3)

MOST = 4
STARTS, PER = 12, 2.0


@contextmanager
def noted(ctx: Context) -> Iterator[None]:
    connection = psycopg2.connect(os.environ["HOLDFAST_DATABASE_URL"].replace("postgresql+psycopg2", "postgresql"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO run VALUES (%s, %s, %s, %s, clock_timestamp(), NULL)",
            (str(ctx.event.id), ctx.event.type, ctx.attempt, os.getpid()),
        )
        yield
        cursor.execute(
            "UPDATE run SET ended = clock_timestamp() WHERE event_id = %s AND attempt = %s AND pid = %s",
            (str(ctx.event.id), ctx.attempt, os.getpid()),
        )
    connection.close()


@handlers.on("flow.limited", name="limited", limit=Concurrency(MOST), retry=AT_ONCE)
def limited(seconds: float, ctx: Context) -> None:
    with noted(ctx):
        time.sleep(seconds)


@handlers.on("flow.keyed", name="keyed", limit=Concurrency(1, key="/account"), transactional=False)
def keyed(data: dict[str, Any], ctx: Context) -> None:
    with noted(ctx):
        time.sleep(data["seconds"])


@handlers.on("flow.rated", name="rated", rate=Rate(STARTS, per=PER))
def rated(data: Any, ctx: Context) -> None:  # noqa: ARG001
    with noted(ctx):
        pass


@handlers.on("flow.slow", name="slow")
def slow(seconds: float, ctx: Context) -> None:
    with noted(ctx):
        time.sleep(seconds)


@handlers.on("flow.urgent", name="urgent", priority=9)
def urgent(data: Any, ctx: Context) -> None:  # noqa: ARG001
    with noted(ctx):
        pass


@handlers.on("flow.gpu", name="gpu", pool="gpu")
def gpu(data: Any, ctx: Context) -> None:  # noqa: ARG001
    with noted(ctx):
        pass
