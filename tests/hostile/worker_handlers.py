"""Handlers as strangers write them: they fork, hang, swallow what should end them, and spoil the process they run in."""

import ctypes
import gc
import hashlib
import logging
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import text

from holdfast.processor import Backoff, Context, Handlers

handlers = Handlers()

AT_ONCE = Backoff(first=0, cap=0, attempts=5)
ONCE = Backoff(first=0, cap=0, attempts=1)

LOCK = 77
"""The advisory lock that ``hostile.locked`` waits for."""


@handlers.on("hostile.plain", name="plain", retry=AT_ONCE)
def plain(data: Any, ctx: Context) -> dict[str, int]:  # noqa: ARG001
    """Leaves an effect, and says which process it ran in."""
    _leave_effect(ctx)
    return {"pid": os.getpid()}


# What hangs, and how.


@handlers.on("hostile.pool", name="pool", transactional=False, timeout=5, retry=AT_ONCE)
def hang_in_pool(data: dict[str, Any], ctx: Context) -> None:
    """Forks a pool and waits in it for ever, the first time."""
    if ctx.attempt == 1 or data.get("always"):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            ctx.log.info("at work", children=[child.pid for child in multiprocessing.active_children()])
            pool.map(time.sleep, [1000, 1000])


@handlers.on("hostile.soon-stuck", name="soon-stuck", transactional=False, timeout=1, retry=ONCE)
def hang_soon(data: dict[str, Any], ctx: Context) -> None:
    """As ``hostile.pool``, with a timeout of one second and one attempt."""
    hang_in_pool({**data, "always": True}, ctx)


@handlers.on("hostile.progress", name="progress", transactional=False, timeout=600, retry=AT_ONCE)
def tell_progress(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Tells its progress for as long as it is let, and does not look at ``ctx.cancelled``."""
    ctx.log.info("at work")
    while True:
        ctx.progress(0.5)
        time.sleep(0.2)


@handlers.on("hostile.busy", name="busy", timeout=600, retry=AT_ONCE)
def tell_progress_in_transaction(data: Any, ctx: Context) -> None:
    """The same with an effect in the settling transaction."""
    _leave_effect(ctx)
    tell_progress(data, ctx)


@handlers.on("hostile.locked", name="locked", timeout=600, retry=AT_ONCE)
def wait_for_lock(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Waits in PostgreSQL for a lock that the test holds."""
    _leave_effect(ctx)
    ctx.log.info("at work")
    ctx.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


@handlers.on("hostile.asleep", name="asleep", transactional=False, timeout=600, retry=AT_ONCE)
def sleep(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """One system call that takes long."""
    ctx.log.info("at work")
    time.sleep(1000)


@handlers.on("hostile.asleep-in-transaction", name="asleep-in-transaction", timeout=600, retry=AT_ONCE)
def sleep_in_transaction(data: Any, ctx: Context) -> None:
    """The same, with the event's row locked."""
    _leave_effect(ctx)
    sleep(data, ctx)


@handlers.on("hostile.computing", name="computing", timeout=600, retry=AT_ONCE)
def compute(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """One call into C that takes minutes, with the event's row locked."""
    _leave_effect(ctx)
    ctx.log.info("at work")
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 500_000_000)


@handlers.on("hostile.swallowing", name="swallowing", timeout=600, retry=AT_ONCE)
def swallow(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Swallows everything that is raised in it."""
    _leave_effect(ctx)
    ctx.log.info("at work")
    while True:
        with suppress(BaseException):
            time.sleep(0.01)


@handlers.on("hostile.frozen", name="frozen", transactional=False, timeout=600, retry=AT_ONCE)
def freeze(data: Any, ctx: Context) -> None:
    """One call into C that keeps the interpreter to itself, the first time: no other thread runs, the main one included."""
    ctx.log.info("at work")
    marker = Path(data["marker"])
    if not marker.exists():
        marker.touch()
        ctypes.PyDLL(None).sleep(1000)


# What is left behind.


@handlers.on("hostile.thread", name="thread", transactional=False, retry=AT_ONCE)
def leave_thread(data: Any, ctx: Context) -> None:  # noqa: ARG001
    """Leaves a thread that is no daemon and never ends."""
    threading.Thread(target=time.sleep, args=[1000], daemon=False).start()


@handlers.on("hostile.subprocess", name="subprocess", transactional=False, retry=AT_ONCE)
def leave_subprocess(data: dict[str, Any], ctx: Context) -> dict[str, int]:  # noqa: ARG001
    """Leaves a program that holds the output open; in a session of its own, if asked to."""
    program = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
    ]
    return {"child": subprocess.Popen(program, start_new_session=data.get("is_detached", False)).pid}


# What comes back twice.


@handlers.on("hostile.fork", name="fork", retry=AT_ONCE)
def return_twice(data: Any, ctx: Context) -> dict[str, int]:  # noqa: ARG001
    """Forks, and both processes return."""
    _leave_effect(ctx)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return {"status": os.waitstatus_to_exitcode(status)}
    return {"status": -1}


@handlers.on("hostile.fork-exit", name="fork-exit", retry=AT_ONCE)
def exit_in_child(data: Any, ctx: Context) -> dict[str, int]:  # noqa: ARG001
    """Forks, and the child leaves with ``sys.exit(7)``."""
    _leave_effect(ctx)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return {"status": os.waitstatus_to_exitcode(status)}
    sys.exit(7)


@handlers.on("hostile.fork-sql", name="fork-sql", retry=AT_ONCE)
def write_in_child(data: Any, ctx: Context) -> dict[str, int]:  # noqa: ARG001
    """Forks, and the child writes through the parent's session, and tells progress."""
    _leave_effect(ctx)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        _leave_effect(ctx)
        return {"status": os.waitstatus_to_exitcode(status)}
    with suppress(Exception):
        ctx.progress(0.5)
    _leave_effect(ctx)
    os._exit(0)


# What spoils the process.


def _close_descriptors() -> None:
    for number in range(3, 256):
        with suppress(OSError):
            os.close(number)


def _use_up_descriptors() -> None:
    kept = []
    with suppress(OSError):
        while True:
            kept.append(os.open(os.devnull, os.O_RDONLY))
    _kept.extend(kept)


def _use_up_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**31, resource.RLIM_INFINITY))
    _kept.append(bytearray(2**31))


def _close_output() -> None:
    sys.stdout.close()
    sys.stderr.close()


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


_kept: list[Any] = []

SPOILERS: dict[str, Callable[[], object]] = {
    "recursion": lambda: sys.setrecursionlimit(60),
    "directory": lambda: os.chdir("/"),
    "descriptors-closed": _close_descriptors,
    "descriptors-used": _use_up_descriptors,
    "memory": _use_up_memory,
    "socket-timeout": lambda: socket.setdefaulttimeout(0.001),
    "gc": gc.disable,
    "excepthook": lambda: setattr(threading, "excepthook", None),
    "logging": logging.shutdown,
    "output": _close_output,
    "session": os.setsid,
    "umask": lambda: os.umask(0o777),
    "warnings": lambda: warnings.simplefilter("error"),
    "signals": _block_signals,
    "signal-handler": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "system-exit": lambda: sys.exit(3),
}


@handlers.on("hostile.spoiler", name="spoiler", transactional=False, retry=ONCE)
def spoil(data: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001
    """Spoils something for everything else in the process."""
    SPOILERS[data["what"]]()


def _leave_effect(ctx: Context) -> None:
    ctx.session.execute(
        text("INSERT INTO effect VALUES (:event_id, :attempt)"), {"event_id": ctx.event.id, "attempt": ctx.attempt}
    )
