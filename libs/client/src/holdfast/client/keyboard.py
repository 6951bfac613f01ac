"""One key at a time, without Enter, where standard input is a terminal."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Wait", "keys"]

Wait = Callable[[float], str]
"""Waits that many seconds for a key; returns it, or nothing."""


@contextmanager
def keys() -> Iterator[Wait]:
    """A function that waits for a key. Where none can be read it waits its time; Ctrl-C always ends the command."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield _sleep
        return
    if not sys.stdin.isatty():
        yield _sleep
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield lambda seconds: _key(terminal, seconds)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _key(terminal: int, seconds: float) -> str:
    ready, _, _ = select.select([terminal], [], [], seconds)
    return os.read(terminal, 1).decode(errors="ignore") if ready else ""


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return ""
