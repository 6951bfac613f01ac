"""Maintenance: brings back what crashes, lost doorbells and a Redis that was away left behind."""

from importlib.metadata import version

__all__ = ["VERSION"]

VERSION = version("holdfast-maintenance")
