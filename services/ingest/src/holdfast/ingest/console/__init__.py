"""The console at ``/console``: pages for people, over the functions that the API has for programs (ADR 0040)."""

from holdfast.ingest.console.room import install

__all__ = ["install"]
