"""A processor without the guard that all other processes of the tests have: the guard would end what it leaves behind."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from holdfast.local.process import children_by_parent
from holdfast.local.servers import free_port
from holdfast.local.services import SERVICES, environment, is_ready
from holdfast.local.stack import Stack

__all__ = ["Unguarded", "is_alive", "unguarded"]


class Unguarded:
    """``python -m holdfast.processor`` on a stack's servers, with these environment variables on top of the stack's."""

    def __init__(self, stack: Stack, variables: dict[str, str]) -> None:
        service = next(service for service in SERVICES if service.name == "processor")
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._log = stack.logs / f"processor-{uuid4().hex}.log"
        values = stack._settings_of(service) | {"HOLDFAST_METRICS_PORT": str(port)} | variables
        with self._log.open("ab") as output:
            self.master = subprocess.Popen(
                service.command, env=environment(values), stdout=output, stderr=output, start_new_session=True
            )

    def is_ready(self) -> bool:
        """Whether it is; fails with the log when it has ended."""
        assert self.master.poll() is None, self._log.read_text()
        return is_ready(self._url)

    def workers(self) -> list[int]:
        """Process ids of the worker processes, its children."""
        return children_by_parent().get(self.master.pid, [])

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.master.send_signal(signal.SIGTERM)
        return self.master.wait(30)


@contextlib.contextmanager
def unguarded(stack: Stack, **variables: str) -> Iterator[Unguarded]:
    """Start one; what is left of it is killed in the end. See :meth:`Unguarded.is_ready`."""
    processor = Unguarded(stack, variables)
    try:
        yield processor
    finally:
        for leader in (processor.master.pid, *processor.workers()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)
        processor.master.wait(10)


def is_alive(pid: int) -> bool:
    """Whether a process runs. One that has ended, and whose end nobody has asked about, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends between the opening and the reading
        return False
