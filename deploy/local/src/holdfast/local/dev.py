"""``python -m holdfast.local dev``: a processor that is started anew whenever the code of its handlers changes."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from watchfiles import PythonFilter, watch

from holdfast.local.process import Guarded

__all__ = ["DEVELOPER_SETTINGS", "DevProcessor", "run_until"]

DEVELOPER_SETTINGS = {
    "HOLDFAST_PROCESSOR_PROCESSES": "1",
    # What runs at a change gets a second to end; then it is given back, and the new code runs it.
    "HOLDFAST_SHUTDOWN_SECONDS": "1",
    # Events of a type whose handler is not written yet, or cannot be imported just now, wait for it.
    "HOLDFAST_NO_HANDLER_SECONDS": "3600",
    "HOLDFAST_LOG_FORMAT": "console",
    # Python takes a compiled file for current if the source has the same second and size: an edit may have both.
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""For a processor that starts often; the environment's own go first."""

GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL: the second of the settings, the three that a processor may take beyond, and one more."""

QUIET_MS = 50
"""Editors write a file in several steps: a change is over when so long nothing happens."""

LOOK_MS = 300
"""How soon the end of the processor is noticed."""

Say = Callable[[str], None]


class DevProcessor:
    """A processor that writes to a terminal.

    Args:
        settings: its environment.
        log: the name of its log, which it would have elsewhere.
        output: what it writes to; has to have a descriptor.
    """

    def __init__(self, settings: Mapping[str, str], *, log: Path, output: TextIO, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._process = Guarded("processor", log=log, output=output.fileno(), grace_seconds=GRACE_SECONDS)

    def start(self) -> None:
        """Start it; whether its handlers can be imported shows a moment later."""
        self._process.start([sys.executable, "-m", "holdfast.processor"], self._settings)

    def restart(self) -> None:
        """Stop it, so that it gives back what it cannot finish, and start it with the code as it is now."""
        self._process.stop()
        self.start()

    def stop(self) -> None:
        """Stop it in order."""
        self._process.stop()

    def note_end(self) -> None:
        """Say, once, that it has ended by itself: its own last lines say why."""
        if self._process.has_died:
            self._process.stop()
            self._say("the processor ended; the reason is above. It starts again at the next change")


class _Sources(PythonFilter):
    """Python files, and files that handlers read; nothing below an environment, a cache or a stack's data."""

    ignore_dirs: Sequence[str] = (*PythonFilter.ignore_dirs, ".holdfast")

    def __init__(self) -> None:
        super().__init__(extra_extensions=(".json", ".toml", ".yaml", ".yml", ".sql"))


def run_until(stop: threading.Event, processor: DevProcessor, folders: Iterable[Path], say: Say) -> None:
    """Keep the processor running with the newest code until ``stop`` is set. Starts it, and always stops it."""
    processor.start()
    try:
        for changed in _changes(stop, folders):
            if not changed:
                processor.note_end()
                continue
            say(f"{', '.join(changed)} changed; starting again")
            processor.restart()
    finally:
        processor.stop()


def _changes(stop: threading.Event, folders: Iterable[Path]) -> Iterator[list[str]]:
    """Names of the files that changed; none every ``LOOK_MS`` without a change."""
    changes = watch(
        *folders, watch_filter=_Sources(), stop_event=stop, step=QUIET_MS, rust_timeout=LOOK_MS, yield_on_timeout=True,
        ignore_permission_denied=True, raise_interrupt=True,
    )  # fmt: skip
    with contextlib.closing(changes):
        for found in changes:
            yield sorted({os.path.relpath(path) for _, path in found})
