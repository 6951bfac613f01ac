"""Where the command line finds the API: options, then the environment, then a local stack's ``stack.json``."""

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Address", "find_address"]


@dataclass(frozen=True, slots=True)
class Address:
    """Addresses and key; ``None`` where nothing says."""

    url: str | None
    api_key: str | None
    live_url: str | None


def find_address(url: str | None, api_key: str | None, live_url: str | None) -> Address:
    """Fill in what was not given from ``.holdfast/stack.json`` in this folder or one above it."""
    if url and api_key:
        return Address(url, api_key, live_url)
    stack = _local_stack()
    return Address(url or stack.get("ingest_url"), api_key or stack.get("api_key"), live_url or stack.get("live_url"))


def _local_stack() -> dict[str, str]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        file = folder / ".holdfast" / "stack.json"
        try:
            found: dict[str, str] = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        return found
    return {}
