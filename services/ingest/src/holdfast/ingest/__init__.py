"""Ingest: takes CloudEvents over HTTP, records each before it answers, then publishes and rings the doorbell."""

from importlib.metadata import version

__all__ = ["VERSION"]

VERSION = version("holdfast-ingest")
