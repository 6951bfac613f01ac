"""Recorded GitHub webhook deliveries as CloudEvents.

Input is one JSON object a line, ``{"event": "<X-GitHub-Event>", "action": "<action>" or null, "payload": {…}}``. Types
and sources follow the CloudEvents adapter for GitHub (cloudevents/spec, ``adapters/github.md``).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["cloudevents"]

GITHUB = "https://github.com"


def cloudevents(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One CloudEvent a line. The same file gives the same identities, so sending it again sends duplicates.

    Raises:
        ValueError: a line that is no delivery, with its number.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            delivery = json.loads(line)
            yield _cloudevent(delivery["event"], delivery.get("action"), delivery["payload"], f"{number}:{line}")
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ValueError(f'line {number} is not {{"event": …, "action": …, "payload": {{…}}}}: {exc}') from exc


def _cloudevent(event: str, action: str | None, payload: dict[str, Any], unique: str) -> dict[str, Any]:
    attributes = {
        "specversion": "1.0",
        "id": hashlib.sha256(unique.encode()).hexdigest()[:32],
        "source": _source(payload),
        "type": f"com.github.{event}" + (f".{action}" if action else ""),
        "subject": _subject(payload),
        "audience": _audience(payload),
        "datacontenttype": "application/json",
        "data": payload,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _source(payload: dict[str, Any]) -> str:
    repository, organization = payload.get("repository") or {}, payload.get("organization") or {}
    if address := repository.get("html_url"):
        return str(address)
    return f"{GITHUB}/{organization['login']}" if organization.get("login") else GITHUB


def _subject(payload: dict[str, Any]) -> str | None:
    """What the event is about: the number of a pull request or issue, else a ref, else the id of something."""
    for name in ("pull_request", "issue", "discussion"):
        if isinstance(thing := payload.get(name), dict) and thing.get("number") is not None:
            return str(thing["number"])
    if isinstance(payload.get("ref"), str):
        return str(payload["ref"])
    for name in ("check_run", "check_suite", "workflow_run", "workflow_job", "release", "deployment", "alert"):
        if isinstance(thing := payload.get(name), dict) and thing.get("id") is not None:
            return str(thing["id"])
    return None


def _audience(payload: dict[str, Any]) -> str | None:
    full_name = (payload.get("repository") or {}).get("full_name")
    return f"repo-{full_name.replace('/', '-')}" if full_name else None
