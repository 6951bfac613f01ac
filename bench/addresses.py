"""The console's addresses over a history that is lived in: every page, and every filter that pages offer.

A new page goes into :func:`addresses`; ``tests/house/test_bench_pages.py`` names what is missing. ``bench.pages`` measures
them, and ``tests/history/test_console.py`` holds what their statements read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from bench.history import Execute
from bench.lived import TENANT
from holdfast.domain.state import State
from holdfast.ingest.console.pages.forms import EventsQuery
from holdfast.ingest.console.pages.handlers import WINDOWS

__all__ = ["PAGES", "Address", "Landmarks", "addresses", "find_landmarks"]

NO_FILTERS = {"state", "limit", "cursor", "notice"}
"""Of the events' query string: what is no filter, and the state, which goes with each."""

VALUES: dict[str, tuple[str, ...]] = {
    "source": ("/source-0", "/source-19", "/never"),
    "id": ("never",),
    "type": ("com.example.type-0", "com.example.type-7", "com.example.never"),
    "subject": ("catalogue", "subject-77", "never"),
    "audience": ("everybody", "user-7", "never"),
    "error_type": ("KeyError", "crash_loop", "never"),
    "handler": ("book-order", "count", "never"),
    "fingerprint": ("f1a7c2d9", "never"),
}
"""Common, rare and never seen. The other filters' values are landmarks."""

STATES = (None, State.DEAD, State.FAILED, State.PROCESSED)
"""That each filter is combined with."""


_DISCARDED = {State.DEAD, State.FAILED}


@dataclass(frozen=True, slots=True)
class Address:
    """``page``: which page it is, as its endpoint is called; ``path``: with the query string."""

    page: str
    path: str


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Ids of the tenant's that addresses need. ``far_back``: an event with seven tenths of the history after it."""

    processed: str
    dead: str
    failed: str
    far_back: str
    replay: str
    discard: str
    replay_far_back: str
    audit_far_back: str
    key_far_back: str
    request_id: str
    trace_id: str
    parent_id: str


_ONE = """
SELECT e.id FROM event e JOIN processing_state s ON s.event_id = e.id
WHERE e.tenant = '{{tenant}}' AND s.state = '{state}' ORDER BY e.id DESC LIMIT 1
"""

_LANDMARKS = {
    "processed": _ONE.format(state="processed"),
    "dead": _ONE.format(state="dead"),
    "failed": _ONE.format(state="failed"),
    "far_back": "SELECT id FROM event ORDER BY id LIMIT 1 OFFSET (SELECT count(*) * 3 / 10 FROM event)",
    "discard": "SELECT id FROM replay_job WHERE tenant = '{tenant}' AND action = 'discard' ORDER BY id DESC LIMIT 1",
    "replay": "SELECT id FROM replay_job WHERE tenant = '{tenant}' AND action = 'replay' ORDER BY id DESC LIMIT 1",
    "replay_far_back": "SELECT id FROM replay_job WHERE tenant = '{tenant}' ORDER BY id DESC LIMIT 1 OFFSET 100",
    "audit_far_back": "SELECT max(id) / 2 FROM audit_log",
    "key_far_back": "SELECT id FROM api_key WHERE tenant = '{tenant}' ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET 50",
    "request_id": "SELECT max(request_id) FROM event WHERE tenant = '{tenant}'",
    "trace_id": "SELECT replace(CAST(trace_id AS text), '-', '') FROM event WHERE tenant = '{tenant}' "
    "AND trace_id IS NOT NULL ORDER BY id DESC LIMIT 1",
    "parent_id": "SELECT parent_id FROM event WHERE tenant = '{tenant}' AND parent_id IS NOT NULL "
    "ORDER BY id DESC LIMIT 1",
}


def find_landmarks(execute: Execute) -> Landmarks:
    """Look them up in a history that is lived in."""
    return Landmarks(
        **{name: execute(statement.format(tenant=TENANT)).strip() for name, statement in _LANDMARKS.items()}
    )


def addresses(marks: Landmarks) -> list[Address]:
    """Every address, the pages in the order of the menu."""
    return [Address(page, path) for page, paths in _PAGES.items() for path in paths(marks)]


def _overview(_: Landmarks) -> Iterator[str]:
    yield from (f"/?window={window.name.lower()}" for window in WINDOWS)


def _handlers(_: Landmarks) -> Iterator[str]:
    yield from (f"/handlers?window={window.name.lower()}" for window in WINDOWS)


def _events(marks: Landmarks) -> Iterator[str]:
    yield from (_path("/events", state=state) for state in (None, *State))
    yield _path("/events", cursor=marks.far_back)
    yield from (_path("/events", **wanted) for wanted in _filters(marks))


def _replay_forms(marks: Landmarks) -> Iterator[str]:
    """What "Replay these" leads to, for the states whose events can be replayed."""
    yield "/replays/new"
    replayable = {State.DEAD, State.PROCESSED}
    yield from (_path("/replays/new", **wanted) for wanted in _filters(marks) if wanted["state"] in replayable)


def _discard_forms(marks: Landmarks) -> Iterator[str]:
    """What "Discard" beside a group leads to."""
    yield from (_path("/discards/new", **wanted) for wanted in _filters(marks) if wanted["state"] in _DISCARDED)


def _audit(marks: Landmarks) -> Iterator[str]:
    yield "/audit"
    yield _path("/audit", cursor=marks.audit_far_back)
    for wanted in ({"action": "replay"}, {"action": "never"}, {"actor": "ann"}, {"actor": "nobody"},
                   {"action": "discard", "actor": "bob"}, {"event_id": marks.dead}):  # fmt: skip
        yield _path("/audit", **wanted)


_PAGES: dict[str, Callable[[Landmarks], Iterator[str]]] = {
    "overview": _overview,
    "events": _events,
    "find": lambda marks: iter([_path("/find", q=marks.dead), _path("/find", q="never")]),
    "event": lambda marks: iter([f"/events/{each}" for each in (marks.processed, marks.dead, marks.failed)]),
    "payload": lambda marks: iter([f"/events/{marks.processed}/payload"]),
    "dead_letters": lambda _: iter(["/dead-letters"]),
    "handlers": _handlers,
    "replays": lambda marks: iter(["/replays", _path("/replays", cursor=marks.replay_far_back)]),
    "replay": lambda marks: iter([f"/replays/{marks.replay}"]),
    "new_replay": _replay_forms,
    "discards": lambda _: iter(["/discards"]),
    "new_discard": _discard_forms,
    "discard": lambda marks: iter([f"/discards/{marks.discard}"]),
    "retention": lambda _: iter(["/retention"]),
    "schedules": lambda _: iter(["/schedules", _path("/schedules", cursor="m")]),
    "workers": lambda _: iter(["/workers"]),
    "tenant": lambda _: iter(["/tenant"]),
    "edit_event": lambda marks: iter([f"/events/{marks.processed}/edit"]),
    "audit": _audit,
    "new_key": lambda _: iter(["/keys/new"]),
    "key": lambda marks: iter([f"/keys/{marks.key_far_back}"]),
    "keys": lambda marks: iter(["/keys", _path("/keys", cursor=marks.key_far_back)]),
}
"""A page, by the name of its endpoint, and its addresses below ``/console``."""

PAGES = tuple(_PAGES)
"""The names of the endpoints that have addresses."""


def _filters(marks: Landmarks) -> Iterator[dict[str, str | None]]:
    """Each filter with each of its values and states, and what the dead letters' groups lead to."""
    noon = datetime.now(UTC) - timedelta(days=15)
    moments = {"received_after": _rfc3339(noon), "received_before": _rfc3339(noon + timedelta(hours=1))}
    marked = {"request_id": marks.request_id, "trace_id": marks.trace_id, "parent_id": marks.parent_id}
    for state in STATES:
        for name in EventsQuery.model_fields.keys() - NO_FILTERS - moments.keys():
            for value in VALUES[name] if name in VALUES else (marked[name],):
                yield {"state": state, name: value}
        yield {"state": state, **moments}
    yield {"state": State.DEAD, "handler": "book-order", "error_type": "KeyError", "fingerprint": "f1a7c2d9"}


def _rfc3339(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _path(path: str, **query: str | None) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
