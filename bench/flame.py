"""``python -m bench.flame``: flame graphs of ingest and a worker process under load, as SVG, made with py-spy.

Samples of threads that hold the interpreter, so that waiting is not drawn. Where processes may not look at each other
(``kernel.yama.ptrace_scope``) it needs to be run as root.
"""

import argparse
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import ingest, limits, processing
from bench.peers.environment import for_peers
from bench.usage import cpu_seconds
from holdfast.local.process import children_by_parent
from holdfast.local.stack import Stack

HERE = Path(__file__).parent

DOCS = HERE.parent / "docs" / "profiles"

SECONDS = 8
"""Of samples."""

RATE = 200
"""Samples a second."""

_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*(</text>)')

AHEAD_SECONDS = 2
"""Of load before the first sample: imports and first plans are over."""


def main() -> int:
    """Write both."""
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description=__doc__)
    parser.add_argument("--folder", type=Path, default=DOCS, help="where they go (docs/profiles)")
    parser.add_argument("--events", type=int, default=40_000, help="for the processor to work on (40000)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    spy = for_peers(say=_say).parent / "py-spy"
    work = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    stack = Stack(work, settings={"HOLDFAST_HANDLERS": "handlers:handlers"}, python_path=str(HERE), say=_say)
    try:
        stack.start()
        stack.hold("processor")
        limits.clear(stack)
        _of_ingest(stack, spy, options.folder / "ingest.svg")
        limits.clear(stack)
        processing.record(stack, options.events, "bench.processing")
        stack.resume("processor")
        time.sleep(AHEAD_SECONDS)
        _record(spy, _busiest(stack, "processor"), options.folder / "processor.svg", "a worker process, empty handlers")
    finally:
        stack.stop()
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _of_ingest(stack: Stack, spy: Path, target: Path) -> None:
    seconds = AHEAD_SECONDS + SECONDS + 1.0
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        load = pool.apply_async(ingest.load, (stack.ingest_url, stack.api_key, seconds))
        time.sleep(AHEAD_SECONDS)
        _record(spy, _busiest(stack, "ingest"), target, "ingest, one event a request, 32 connections")
        load.get(60)


def _busiest(stack: Stack, service: str) -> int:
    """Of a service's processes the one that takes most CPU time just now."""
    pids = stack.services[service].pids(children_by_parent())
    before = {pid: cpu_seconds([pid]) for pid in pids}
    time.sleep(0.5)
    return max(before, key=lambda pid: cpu_seconds([pid]) - before[pid])


def _record(spy: Path, pid: int, target: Path, title: str) -> None:
    _say(f"sampling {title} for {SECONDS} s")
    subprocess.run(
        [
            str(spy), "record", "--gil", "--rate", str(RATE), "--duration", str(SECONDS), "--output", str(target),
            "--pid", str(pid),
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    # py-spy writes its command above the picture, with this machine's paths.
    drawn = target.read_text()
    target.write_text(_TITLE.sub(lambda match: f"{match[1]}{title}{match[2]}", drawn))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
