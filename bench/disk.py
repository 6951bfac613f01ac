"""``python -m bench.disk``: what an event costs on disk, relation by relation.

Events are recorded, claimed and settled by the project's own functions, in lists; then everything is vacuumed and each
table and index is measured (``pg_relation_size`` of all forks; a table's TOAST belongs to the table).
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bench.server import fresh_database
from holdfast.domain.event import NewEvent, canonical_json
from holdfast.domain.transitions import Completion, settle
from holdfast.local.servers import Postgres
from holdfast.runtime.ids import uuid7
from holdfast.storage import claims, events, lifecycle
from holdfast.storage.database import Database

__all__ = ["DATA_BYTES", "Relation", "fill", "page", "sizes"]

LIST = 20
"""Events a transaction: what ingest records together under load. Pages of indexes fill differently with other lists."""

VACUUM_EVERY = 20_000
"""Events. Autovacuum comes once a minute at most, which is later than a fill by lists would need it."""

DATA_BYTES = 300

_SIZES = """
SELECT c.relname, coalesce(i.indrelid::regclass::text, c.relname),
       pg_table_size(c.oid)
FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') AND pg_relation_size(c.oid) >= {least}
ORDER BY 2, c.relkind DESC, 3 DESC
"""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or an index. ``size``: bytes on disk, TOAST and maps included."""

    name: str
    table: str
    size: int


def fill(server: Postgres, name: str, count: int) -> None:
    """Take ``count`` events through ``queued``, ``processing`` and ``processed``, with one update each."""
    database = Database(server.url(name), application_name="bench", pool_size=1)
    for start in range(0, count, LIST):
        if start % VACUUM_EVERY == 0:
            server.execute("VACUUM", database=name)
        made = [_event(start + number) for number in range(min(LIST, count - start))]
        recorded = database.call(events.record, made, grace_seconds=3600)
        doorbells = [(each.update.event_id, each.update.version) for each in recorded]
        leased = database.call(claims.claim_events, doorbells, owner="bench-1/worker-1", lease_seconds=30)
        done = [
            settle(lease.event.id, lease.token, Completion("book-order", {"booked": 4200}, 7)) for lease, _ in leased
        ]
        database.call(lifecycle.apply, done)
    database.close()


def sizes(server: Postgres, database: str, *, least: int = 65_536) -> list[Relation]:
    """Every relation of the schema with ``least`` bytes or more, after a VACUUM."""
    server.execute("VACUUM ANALYZE", database=database)
    rows = [line.split("\t") for line in server.execute(_SIZES.format(least=least), database=database).splitlines()]
    return [Relation(name, table, int(size)) for name, table, size in rows]


def page(relations: Sequence[Relation], events: int) -> str:
    """Bytes an event, as Markdown."""
    rows = [f"| `{each.name}` | {each.size / events:,.0f} |" for each in relations]
    total = sum(each.size for each in relations) / events
    return "\n".join(["| relation | bytes an event |", "|---|---|", *rows, f"| **all** | **{total:,.0f}** |", ""])


def _event(number: int) -> NewEvent:
    frame = canonical_json({"n": number, "text": ""})
    data = canonical_json({"n": number, "text": "x" * (DATA_BYTES - len(frame))})
    return NewEvent(
        id=uuid7(), tenant="acme", source="/shop/checkout", ce_id=str(uuid4()), type="com.acme.order.placed",
        subject=f"order-{number % 100_000}", audience=f"user-{number % 200}", datacontenttype="application/json",
        data_json=data,
    )  # fmt: skip


def main() -> int:
    """Measure on a server of its own, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.disk", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="events (200000)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-disk-"))
    server = Postgres(folder, is_durable=False)
    try:
        server.start()
        name = fresh_database(server)
        fill(server, name, options.events)
        sys.stdout.write(page(sizes(server, name), options.events))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
