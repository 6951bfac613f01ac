"""Who holds a folder, and how a process that does is asked to stop."""

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from holdfast.local.process import StartFailed

__all__ = ["only_one", "owner_of", "stopping_on_signals"]


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder: two stacks on the same data would ruin it."""
    with (folder / "owner").open("a+") as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed("a stack runs in this folder already: stop it with 'make down'") from None
        owner.truncate(0)
        owner.write(str(os.getpid()))
        owner.flush()
        yield


def owner_of(folder: Path) -> int | None:
    """The process that holds the folder, or ``None``."""
    try:
        with (folder / "owner").open() as owner:
            try:
                fcntl.flock(owner, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(owner.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[threading.Event]:
    """SIGTERM and Ctrl-C end the block; once it is ending they are ignored, so that everything is stopped in order."""
    stop = threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        yield stop
