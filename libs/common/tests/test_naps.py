"""A sleep that a signal ends."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from holdfast.runtime.naps import Nap

LONG_SECONDS = 20.0


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Signals that the handler has seen. Whatever woke this process's main thread before does so again afterwards."""
    numbers: list[int] = []
    before, woken = signal.signal(signal.SIGUSR1, lambda number, _: numbers.append(number)), signal.set_wakeup_fd(-1)
    yield numbers
    signal.signal(signal.SIGUSR1, before)
    signal.set_wakeup_fd(woken)


def test_a_signal_ends_a_nap_and_so_does_one_that_came_right_before(heard: list[int]) -> None:
    nap = Nap()
    began = time.monotonic()

    os.kill(os.getpid(), signal.SIGUSR1)
    nap.sleep(LONG_SECONDS)
    assert heard == [signal.SIGUSR1]
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    nap.sleep(LONG_SECONDS)

    assert heard == [signal.SIGUSR1, signal.SIGUSR1]
    assert time.monotonic() - began < LONG_SECONDS


def test_a_nap_without_a_signal_takes_its_time() -> None:
    began = time.monotonic()

    Nap().sleep(0.05)
    Nap.forget()

    assert time.monotonic() - began >= 0.05
