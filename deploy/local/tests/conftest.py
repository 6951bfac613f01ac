"""Folders for servers, and a look at which processes live in a folder."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short-lived folder that is not below pytest's own, whose names are too long for some servers."""
    with tempfile.TemporaryDirectory(prefix="holdfast-local-", ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()


@pytest.fixture
def living_in(folder: Path) -> Callable[[], list[str]]:
    """The processes that work in ``folder`` or below: whatever was started there works there."""

    def look() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink().is_relative_to(folder):
                    found.append(f"{process.name} {(process / 'cmdline').read_text()}".replace("\0", " "))
            except OSError:
                continue  # it has ended, or is not ours to look at
        return found

    return look
