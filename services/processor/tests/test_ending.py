"""A worker's main thread sleeps long, and hears at once that it is to end, or that nobody looks after it any more."""

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.local.fixtures import Eventually
from holdfast.processor.worker.canary import STARVED_SECONDS, Canary
from holdfast.processor.worker.ending import Ending

LONG_SECONDS = 20.0


def forked(run: Callable[[], int]) -> int:
    """The id of a process that does this and ends with the status that it returns."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = run()
        finally:
            os._exit(status)
    return pid


def waited(parent: int, tell: int) -> int:
    """Wait as a worker does; 1 if it was told to stop, 2 if it is an orphan."""
    ending = Ending(parent)
    os.write(tell, b"%d\n" % os.getpid())
    ending.wait(LONG_SECONDS)
    return ending.is_requested + 2 * ending.is_orphan()


def read_line(descriptor: int) -> str:
    with os.fdopen(descriptor) as lines:
        return lines.readline().strip()


def sleeps(pid: int | str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """As the first process forks: a signal that comes before the worker's handlers is kept for them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


@pytest.mark.skipif(sys.platform != "linux", reason="the test looks into /proc")
def test_a_worker_that_sleeps_hears_at_once_that_it_is_to_stop(eventually: Eventually) -> None:
    told, tell = os.pipe()
    me = os.getpid()
    with blocked_signals():
        pid = forked(lambda: waited(me, tell))
    read_line(told)
    eventually(lambda: sleeps(pid))
    began = time.monotonic()

    os.kill(pid, signal.SIGTERM)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert time.monotonic() - began < LONG_SECONDS / 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it looks once a second")
def test_a_worker_that_sleeps_hears_at_once_that_its_parent_is_gone(eventually: Eventually) -> None:
    (told, tell), (ended, end) = os.pipe(), os.pipe()

    def be_worker(parent: int) -> int:
        os.write(end, b"%d" % waited(parent, tell))
        return 0

    def be_parent() -> int:
        me = os.getpid()
        forked(lambda: be_worker(me))
        signal.pause()
        return 0

    parent = forked(be_parent)
    worker = read_line(told)
    eventually(lambda: sleeps(worker))
    began = time.monotonic()

    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)

    assert os.read(ended, 1) == b"2"
    assert time.monotonic() - began < LONG_SECONDS / 2


def test_a_canary_that_was_not_looked_at_for_long_is_not_taken_for_starved() -> None:
    def starve() -> int:
        canary = Canary()
        was_dead = canary.is_dead()
        threading.Event().wait(1.2 * STARVED_SECONDS)  # as the main thread does between two looks
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        return was_dead + 2 * canary.is_dead() + 4 * (not canary.is_starving)

    assert os.waitstatus_to_exitcode(os.waitpid(forked(starve), 0)[1]) == 0
