"""Oban's side: ``python -m bench.peers.workers.oban_tasks work`` until SIGTERM."""

import asyncio
import os
import signal
import sys

from oban import Oban, job
from oban.schema import install

__all__ = ["enqueue", "noop", "work"]

BATCH = 1000
LIMIT = 50
"""Jobs at a time."""


@job(queue="bench")  # type: ignore[untyped-decorator]
async def noop(number: int) -> None:
    """Do nothing."""


async def enqueue(messages: int) -> None:
    """Make the tables, then fill the queue."""
    pool = await Oban.create_pool(os.environ["BENCH_DATABASE_URL"])
    await install(pool)
    oban = Oban(pool=pool)
    for start in range(0, messages, BATCH):
        await oban.enqueue_many(noop.new(number) for number in range(start, min(start + BATCH, messages)))
    await pool.close()


async def work() -> None:
    """Work until SIGTERM."""
    is_over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
    pool = await Oban.create_pool(os.environ["BENCH_DATABASE_URL"])
    async with Oban(pool=pool, queues={"bench": LIMIT}):
        await is_over.wait()
    await pool.close()


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[3])))
