"""Sleep that a signal ends: what is told by signals need not be looked for."""

import os
import select
import signal

__all__ = ["Nap"]


class Nap:
    """Sleeps in the main thread, until the time is up or a signal comes that has a handler in Python.

    The signal's number is written to a pipe by the interpreter (``signal.set_wakeup_fd``), so one that comes right before
    the sleep ends it too. Forked processes share the pipe until they call :meth:`forget`.
    """

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def sleep(self, seconds: float) -> None:
        """Until then, or a signal. Its handler has run when this returns."""
        ready, _, _ = select.select([self._reading], [], [], seconds)
        if ready:
            os.read(self._reading, 4096)

    @staticmethod
    def forget() -> None:
        """In a forked process: wake nobody by its signals."""
        signal.set_wakeup_fd(-1)
