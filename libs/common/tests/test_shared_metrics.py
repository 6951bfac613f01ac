"""Metrics of several processes, each test in an interpreter of its own: what is shared once is shared until the end."""

import os
import subprocess
import sys
from pathlib import Path

COUNT = """
import multiprocessing, os
from pathlib import Path
from prometheus_client import generate_latest
from holdfast.runtime.shared_metrics import registry, shared_metrics

def count(times):
    from holdfast.runtime.telemetry import Metrics, export_metrics
    export_metrics("processor", version="1")
    for _ in range(times):
        Metrics.retries.labels("handler").inc()

with shared_metrics(["a", "b"]):
    import holdfast.runtime.telemetry
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    before = sorted(file.name for file in folder.iterdir())
    print(len(before), min(file.stat().st_blocks * 512 for file in folder.iterdir()))
    context = multiprocessing.get_context("fork")
    for name, times in [("a", 2), ("b", 3), ("a", 4)]:
        process = context.Process(target=count, args=(times,), name=name)
        process.start()
        process.join()
    print(registry().get_sample_value("holdfast_retries_total", {"handler": "handler"}))
    print(registry().get_sample_value("holdfast_lost_leases_total"))
    print(sorted(file.name for file in folder.iterdir()) == before)
"""

GONE = """
import multiprocessing, os, shutil
from holdfast.runtime.shared_metrics import shared_metrics

def count():
    from holdfast.runtime.telemetry import Metrics
    Metrics.polled.inc()
    Metrics.retries.labels("handler").inc()
    Metrics.turning_away.set(1)
    Metrics.handler_seconds.labels("handler", "processed").observe(1)
    print("went on", flush=True)

with shared_metrics(["a"]):
    import holdfast.runtime.telemetry
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    process = multiprocessing.get_context("fork").Process(target=count, name="a")
    process.start()
    process.join()
"""

TOO_LATE = """
import holdfast.runtime.telemetry
from holdfast.runtime.shared_metrics import shared_metrics
shared_metrics([]).__enter__()
"""

NOWHERE = """
import tempfile
from holdfast.runtime.shared_metrics import shared_metrics
tempfile.tempdir = "/nowhere"
shared_metrics([]).__enter__()
"""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_processes_count_together_and_successors_go_on(tmp_path: Path) -> None:
    ran = run(COUNT, tmp_path)

    assert ran.stderr == ""
    _, total, unmoved, has_no_more_files = ran.stdout.splitlines()
    assert (total, unmoved, has_no_more_files) == ("9.0", "0.0", "True")


def test_all_room_is_taken_before_the_processes_start(tmp_path: Path) -> None:
    """A process that writes to a mapped file is killed when there turns out to be no room for the page."""
    files, least_bytes = map(int, run(COUNT, tmp_path).stdout.splitlines()[0].split())

    assert files == 3 * 4
    assert least_bytes >= 256 * 1024


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    run(COUNT, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_what_counts_goes_on_though_the_folder_is_gone(tmp_path: Path) -> None:
    ran = run(GONE, tmp_path)

    assert (ran.stdout, ran.stderr) == ("went on\n", "")


def test_metrics_that_are_made_already_can_not_be_shared(tmp_path: Path) -> None:
    assert "RuntimeError: metrics are made already" in run(TOO_LATE, tmp_path).stderr


def test_without_a_place_for_files_the_error_names_two_ways_out(tmp_path: Path) -> None:
    said = run(NOWHERE, tmp_path).stderr.splitlines()[-1]

    assert said.startswith("holdfast.domain.errors.ConfigurationError: no place for the processes' metrics")
    assert "TMPDIR" in said
    assert "HOLDFAST_METRICS_PORT=0" in said
