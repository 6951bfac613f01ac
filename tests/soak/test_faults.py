"""What faults strike."""

import os
import sys
from pathlib import Path

from holdfast.local.fixtures import Eventually
from holdfast.local.process import Guarded

from .faults import workers_of

SERVICE = """
import os, signal
if not os.fork():  # a worker
    os.fork()  # what a handler of it forks
signal.pause()
"""


def test_a_workers_own_children_are_no_workers(tmp_path: Path, eventually: Eventually) -> None:
    process = Guarded("service", log=tmp_path / "service.log", grace_seconds=1)
    process.start([sys.executable, "-c", SERVICE], os.environ)
    try:
        eventually(lambda: len(process.pids()) == 3, message="all three run")
        first, worker, _ = process.pids()

        assert workers_of(process) == [worker]
        assert process.pid == first
    finally:
        process.stop()
