"""Where the command finds the API: options, then the environment, then a local stack's ``stack.json``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Address", "find_address"]


@dataclass(frozen=True, slots=True)
class Address:
    """Addresses and key; ``None`` where unknown. An empty string counts as unknown."""

    url: str | None
    api_key: str | None
    live_url: str | None


def find_address(url: str | None, api_key: str | None, live_url: str | None = None) -> Address:
    """Fill in what is missing from ``.holdfast/stack.json`` in this folder or one above it.

    A local stack's key and gateway are used with its own address only: its key is never sent to another server.
    """
    stack = _local_stack()
    if url and url.rstrip("/") != stack.get("ingest_url"):
        stack = {}
    return Address(url or stack.get("ingest_url"), api_key or stack.get("api_key"), live_url or stack.get("live_url"))


def _local_stack() -> dict[str, Any]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        try:
            stack = json.loads((folder / ".holdfast" / "stack.json").read_text())
        except (OSError, ValueError):
            continue
        if isinstance(stack, dict):
            return stack
    return {}
