"""Procrastinate's side: ``procrastinate --app bench.peers.workers.procrastinate_tasks.app worker``."""

import os
import sys

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

__all__ = ["app", "noop"]

BATCH = 1000

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"]))


@app.task(name="noop")  # type: ignore[untyped-decorator]
async def noop(number: int) -> None:
    """Do nothing."""


def main() -> None:
    """Make the tables, then fill the queue."""
    messages = int(sys.argv[3])
    with (
        app.replace_connector(SyncPsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"])) as filling,
        filling.open(),
    ):
        filling.schema_manager.apply_schema()
        for start in range(0, messages, BATCH):
            noop.batch_defer(*({"number": number} for number in range(start, min(start + BATCH, messages))))


if __name__ == "__main__":
    main()
