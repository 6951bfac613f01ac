"""Figures as a page of Markdown."""

from dataclasses import dataclass

__all__ = ["Figure", "page"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; ``limit`` is what it is to be compared with."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    def row(self) -> str:
        """A row of the table."""
        value = f"{self.value:,.0f}" if self.unit == "events/s" else f"{self.value:.1f}"
        share = f"{self.value / self.limit:.0%}" if self.limit else ""
        return f"| {self.name} | {value} {self.unit} | {share} |"


def page(figures: list[Figure], *, machine: str, seconds: float, rounds: int) -> str:
    """The page."""
    rows = "\n".join(figure.row() for figure in figures)
    return f"""# Benchmarks

Measured with `make bench` ({rounds} rounds of {seconds:g} s each, medians; every server and the load generator on the same
machine): {machine}. Absolute figures drift with the machine; compare the shares, which are taken within one run.

| what | figure | of its limit |
|---|---|---|
{rows}

How to read it. The limits are what PostgreSQL alone does with the same rows, driven by pgbench; fsync and synchronous
commit are on. Ingest and processor share two cores with PostgreSQL, Valkey and the load generator. Nothing has been tuned
yet: the hot statements take lists from the start, so that group commit and micro-batches change callers and not the
protocol.
"""
