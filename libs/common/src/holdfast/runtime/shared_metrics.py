"""Metrics of a service's processes, counted together: whichever process is asked answers for all of them.

This is the multi-process mode of prometheus-client (see "Multiprocess Mode" in its documentation): every process keeps its
values in files of a folder that they share, and the files are added up when somebody asks.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from holdfast.domain.errors import ConfigurationError

__all__ = ["forget_live", "registry", "shared_metrics"]

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which the library finds the folder."""

KINDS = ("counter", "gauge_max", "gauge_sum", "histogram")
"""Beginnings of the library's file names, for the metrics that there are."""

FILE_BYTES = 256 * 1024
"""Enough for some hundred handlers and outcomes; the library extends a file that is full."""


@contextmanager
def shared_metrics(processes: Iterable[str]) -> Iterator[None]:
    """Count together with the processes of these names, which are forked within the block.

    It has to be entered before :mod:`holdfast.runtime.telemetry` is imported: a metric keeps its values where it was made.

    Raises:
        ConfigurationError: there is no place for the files.
        RuntimeError: it is too late.
    """
    if "holdfast.runtime.telemetry" in sys.modules:
        raise RuntimeError("metrics are made already")
    os.environ[FOLDER] = folder = _folder([_this_process(), *processes])
    values.ValueClass = _value_class()
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def registry() -> CollectorRegistry:
    """What to answer with: the sums over all processes that share their metrics, or those of this process."""
    if FOLDER not in os.environ:
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


def forget_live(process: str) -> None:
    """A process has died: what its ``live…`` gauges say is not so any more, and its successor must not go on from there."""
    if FOLDER in os.environ:
        mark_process_dead(process)  # type: ignore[no-untyped-call]


def _this_process() -> str:
    return multiprocessing.current_process().name


def _folder(processes: Iterable[str]) -> str:
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix="holdfast-metrics-")
        for process in processes:
            for kind in KINDS:
                # In full now: a process that writes to a mapped file whose disk is full is killed by SIGBUS.
                Path(folder, f"{kind}_{process}.db").write_bytes(bytes(FILE_BYTES))
    except OSError as exc:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise ConfigurationError(
            f"no place for the processes' metrics ({exc.strerror}): let TMPDIR name a folder that can be written to, or"
            " switch metrics off with HOLDFAST_METRICS_PORT=0"
        ) from None
    return folder


def _value_class() -> Any:
    # By the name of a process and not its id: a worker that is started again goes on with its predecessor's files. Otherwise
    # each would leave some behind, which are read whenever somebody asks (prometheus/client_python#509).
    stored: Any = values.MultiProcessValue(_this_process)  # type: ignore[no-untyped-call]

    class Value(stored):  # type: ignore[misc]
        """Counts, or does nothing where the files are gone.

        Metrics move in the middle of work. Between a claim and its handler an exception would lose the claim and a thread.
        """

        def __init__(self, *arguments: Any, **options: Any) -> None:
            with suppress(Exception):
                super().__init__(*arguments, **options)

        def inc(self, amount: float) -> None:
            with suppress(Exception):
                super().inc(amount)

        def set(self, value: float, timestamp: float | None = None) -> None:
            with suppress(Exception):
                super().set(value, timestamp)

    return Value
