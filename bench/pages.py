"""``python -m bench.pages``: how long the console's pages take over a large history, every page and every filter.

One ingest, as production starts it, beside a history of ``bench.history`` that is lived in (``bench.lived``). One visitor
asks for all addresses in turn, round after round, so that a machine that drifts does so under all of them. A time is what
the visitor waits, over loopback: the server's own and less than a millisecond. CPU is that of ingest and PostgreSQL.
"""

import argparse
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.addresses import Address, addresses, find_landmarks
from bench.history import Execute, make_history
from bench.lived import TENANT, beat, settle_in
from bench.usage import cpu_seconds
from bench.visitor import Visitor
from holdfast.local.process import children_by_parent
from holdfast.local.stack import Stack

__all__ = ["GOAL_MS", "Times", "ask_all", "table"]

GOAL_MS = 100.0

ALL_BUT_INGEST = ("processor", "maintenance", "scheduler", "ws-gateway")


@dataclass(slots=True)
class Times:
    """What an address took: milliseconds of each request, and CPU milliseconds of all together."""

    address: Address
    took_ms: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0

    @property
    def median_ms(self) -> float:
        """Of all requests."""
        return statistics.median(self.took_ms)

    @property
    def p95_ms(self) -> float:
        """What 95 % of the requests did not exceed."""
        return sorted(self.took_ms)[math.ceil(0.95 * len(self.took_ms)) - 1]


def ask_all(visitor: Visitor, wanted: Sequence[Address], pids: Sequence[int], *, rounds: int, each: int) -> list[Times]:
    """Ask for every address ``each`` times a round.

    Raises:
        ValueError: a page was answered with an error.
    """
    measured = [Times(address) for address in wanted]
    for _ in range(rounds):
        for times in measured:
            used = cpu_seconds(pids)
            times.took_ms += [_ask(visitor, times.address.path) for _ in range(each)]
            times.cpu_ms += 1000 * (cpu_seconds(pids) - used)
    return measured


def _ask(visitor: Visitor, path: str) -> float:
    began = time.perf_counter()
    answer = visitor.get(path)
    took_ms = 1000 * (time.perf_counter() - began)
    if answer.status_code not in (200, 303):
        raise ValueError(f"{path} was answered with {answer.status_code}")
    return took_ms


def table(measured: Sequence[Times]) -> str:
    """A row for each page, with its slowest address; and one for every address that misses the goal."""
    rows = ["| page | addresses | median ms | p95 ms | CPU ms | the slowest | |", "|---|---|---|---|---|---|---|"]
    rows += [_row(page, list(of_page)) for page, of_page in _by_page(measured)]
    missed = [times for times in measured if times.p95_ms > GOAL_MS]
    rows += [f"missed: {each.address.path}, p95 {each.p95_ms:.0f} ms" for each in missed]
    return "\n".join(rows) + "\n"


def _by_page(measured: Sequence[Times]) -> Iterator[tuple[str, list[Times]]]:
    for page in dict.fromkeys(times.address.page for times in measured):
        yield page, [times for times in measured if times.address.page == page]


def _row(page: str, of_page: list[Times]) -> str:
    """Median, p95 and CPU of the slowest address."""
    slowest = max(of_page, key=lambda times: times.p95_ms)
    verdict = "met" if slowest.p95_ms <= GOAL_MS else "missed"
    cpu_ms = slowest.cpu_ms / len(slowest.took_ms)
    return (
        f"| {page} | {len(of_page)} | {slowest.median_ms:.1f} | {slowest.p95_ms:.1f} | {cpu_ms:.1f}"
        f" | `{slowest.address.path}` | {verdict} |"
    )


def main() -> int:
    """Measure on a stack of its own, and print; exit status 1 if a page misses the goal."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the history (1000000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--each", type=int, default=4, help="requests for each address a round (4)")
    parser.add_argument("--only", default="", help="addresses with this in their path")
    parser.add_argument("--all", action="store_true", help="print every address")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-pages-"))
    stack = Stack(folder, held=ALL_BUT_INGEST, is_durable=False, say=_say)
    try:
        stack.start()
        run = _runner(stack)
        make_history(run, options.events, say=_say)
        settle_in(run)
        beat(run)
        wanted = [each for each in addresses(find_landmarks(run)) if options.only in each.path]
        _say(f"asking for {len(wanted)} addresses")
        with Visitor(stack.ingest_url, stack.create_key(TENANT)) as visitor:
            ask_all(visitor, wanted, _pids(stack), rounds=1, each=1)  # each process has its plans, templates and key
            measured = ask_all(visitor, wanted, _pids(stack), rounds=options.rounds, each=options.each)
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(table(measured))
    if options.all:
        sys.stdout.writelines(f"{each.median_ms:8.1f} {each.p95_ms:8.1f}  {each.address.path}\n" for each in measured)
    return int(any(each.p95_ms > GOAL_MS for each in measured))


def _runner(stack: Stack) -> Execute:
    return lambda statements: stack.postgres.execute(statements, database="holdfast")


def _pids(stack: Stack) -> list[int]:
    """Ingest's processes, and those of PostgreSQL that serve them: it keeps its connections."""
    backends = _runner(stack)("SELECT pid FROM pg_stat_activity WHERE application_name = 'holdfast-ingest'")
    return [*stack.services["ingest"].pids(children_by_parent()), *map(int, backends.split())]


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
