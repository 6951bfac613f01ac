"""Handlers that are cancelled while they run (``HOLDFAST_HANDLERS=cancel_handlers:handlers``)."""

import socket
import time
from typing import Any

from sqlalchemy import text

from holdfast.processor import Context, Handlers

handlers = Handlers()


def leave_effect(ctx: Context) -> None:
    ctx.session.execute(text("INSERT INTO effect VALUES (:id, '')"), {"id": ctx.event.id})


@handlers.on("test.python", name="python")
def python(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)
    while True:
        time.sleep(0.01)


@handlers.on("test.sql", name="sql")
def sql(data: Any, ctx: Context) -> None:  # noqa: ARG001
    leave_effect(ctx)
    ctx.session.execute(text("SELECT pg_sleep(60)"))


@handlers.on("test.socket", name="socket")
def waits_for_socket(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Hangs in a call that no exception reaches, with effects that are not committed."""
    leave_effect(ctx)
    _hang()


@handlers.on("test.turn", name="turn", ordering="subject")
def turn(data: Any, ctx: Context) -> None:
    leave_effect(ctx)
    while data == "endless":
        time.sleep(0.01)


@handlers.on("test.released", name="released")
def released(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Is done once the test says so, by a row."""
    leave_effect(ctx)
    while not ctx.session.scalar(text("SELECT EXISTS (SELECT FROM effect WHERE note = 'released')")):
        time.sleep(0.01)


@handlers.on("test.outside", name="outside", transactional=False)
def outside(data: Any, ctx: Context) -> str:  # noqa: ARG001
    """Looks whether it is cancelled, and returns as if all were well."""
    while not ctx.cancelled:
        time.sleep(0.01)
    return "stopped by myself"


@handlers.on("test.outside.deaf", name="outside-deaf", transactional=False)
def outside_deaf(data: Any, ctx: Context) -> None:  # noqa: ARG001
    while True:
        time.sleep(0.01)


@handlers.on("test.outside.socket", name="outside-socket", transactional=False)
def outside_socket(data: Any, ctx: Context) -> None:  # noqa: ARG001
    _hang()


def _hang() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)
