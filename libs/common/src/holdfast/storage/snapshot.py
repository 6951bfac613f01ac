"""Which transactions a moment saw the end of: PostgreSQL's ``pg_snapshot`` as a value."""

from dataclasses import dataclass

__all__ = ["Snapshot", "parse_snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Saw the end of every transaction below ``end`` but those that were ``running``.

    Transaction ids are 64 bits wide: they grow, and none is ever given twice.

    Attributes:
        end: the first id that was not given yet, or whose transaction ran (``xmax``).
        running: ids below ``end`` of transactions that ran, in order.
    """

    end: int
    running: tuple[int, ...] = ()

    def sees(self, transaction_id: int) -> bool:
        """Whether the transaction had ended."""
        return transaction_id < self.end and transaction_id not in self.running

    def up_to(self, transaction_id: int) -> "Snapshot":
        """One that sees what this one sees, up to this transaction and no further."""
        return Snapshot(transaction_id + 1, tuple(each for each in self.running if each <= transaction_id))

    def __str__(self) -> str:
        """As PostgreSQL writes it: ``xmin:xmax:xip,…``."""
        first = self.running[0] if self.running else self.end
        return f"{first}:{self.end}:{','.join(map(str, self.running))}"


def parse_snapshot(text: str) -> Snapshot:
    """Read what PostgreSQL wrote: https://www.postgresql.org/docs/current/functions-info.html (``pg_snapshot``)."""
    _, end, running = text.split(":")
    return Snapshot(int(end), tuple(map(int, running.split(","))) if running else ())
