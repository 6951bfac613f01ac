"""Ending handlers that are still at work when a process has to go."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Cancelled", "Interrupted", "Interruptions", "TimedOut"]


class Interrupted(BaseException):
    """Raised within a handler whose process has no time left. Not an ``Exception``: handlers must not swallow it."""


class TimedOut(BaseException):
    """Raised within a handler whose time is up."""


class Cancelled(BaseException):
    """Raised within a handler whose event an operator has cancelled."""


class Interruptions:
    """The threads that are within a handler; nothing else is ever interrupted.

    An exception raised into a thread arrives between two of its Python instructions. Within a handler that is harmless: its
    transaction is rolled back. Within a commit or the connection pool it would not be.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the blocks were interrupted: no more may begin."""
        return self._is_over

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """The block may be interrupted; once the others have been it does not begin.

        Raises:
            Interrupted: instead of beginning, or within the block.
        """
        thread = threading.get_ident()
        with self._lock:
            if self._is_over:
                raise Interrupted
            self._threads.add(thread)
        try:
            yield
        finally:
            with self._lock:
                self._threads.discard(thread)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Within :meth:`allowed`: the inner block is not interrupted. What comes meanwhile is raised at its end, or is
        raised again later by who wants the block to end.

        Raises:
            Interrupted: at the end of the block.
        """
        thread, was_allowed = threading.get_ident(), False
        try:
            with self._lock:
                was_allowed = thread in self._threads
                self._threads.discard(thread)
            yield
        finally:
            if was_allowed:
                with self._lock:
                    self._threads.add(thread)
        if was_allowed and self._is_over:
            raise Interrupted

    def interrupt(self) -> None:
        """Raise :class:`Interrupted` in every such block. A thread in a system call notices when that returns."""
        with self._lock:
            self._is_over = True
            for thread in self._threads:
                _raise_in(thread, Interrupted)

    def interrupt_one(self, thread: int, error: type[BaseException]) -> bool:
        """Raise an exception in the thread, provided that it is within such a block; whether it is."""
        with self._lock:
            is_within = thread in self._threads
            if is_within:
                _raise_in(thread, error)
        return is_within


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Raise in another thread, between two of its instructions (CPython C API, ``PyThreadState_SetAsyncExc``).

    In Python 3.11 nothing can be raised any more in a thread that failed to start another one: the state of that one stays,
    under the same id, and takes the exception. A handler in such a thread is found to be stuck, and its process is replaced.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
