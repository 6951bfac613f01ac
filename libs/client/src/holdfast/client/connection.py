"""Where the command line finds the API: options, then the environment, then a local stack's ``stack.json``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Address", "find_address"]


@dataclass(frozen=True, slots=True)
class Address:
    """Addresses and key; ``None`` where nothing says, an empty string counting as nothing."""

    url: str | None
    api_key: str | None
    live_url: str | None


def find_address(url: str | None, api_key: str | None, live_url: str | None = None) -> Address:
    """Fill in what was not given from ``.holdfast/stack.json`` in this folder or one above it.

    A local stack's key and gateway go with its own address only: a key is never sent to another server.
    """
    stack = _local_stack()
    if url and url.rstrip("/") != stack.get("ingest_url"):
        stack = {}
    return Address(url or stack.get("ingest_url"), api_key or stack.get("api_key"), live_url or stack.get("live_url"))


def _local_stack() -> dict[str, Any]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        try:
            found = json.loads((folder / ".holdfast" / "stack.json").read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}
