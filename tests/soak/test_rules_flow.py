"""The rules for limits, pauses, windows and events that nobody sends, on observations made by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from .history import History
from .rules import check

Record = dict[str, Any]
Damage = Callable[[History], object]


@pytest.fixture
def history() -> History:
    """One or two events of each kind, all as they should be; and a run that was killed while it held a limit."""
    made = History(run={
        "seed": 1, "lease_seconds": 3.0, "began": 0.0, "faults_ended": 100.0, "calm_since": 100.0, "ended": 130.0,
        "unready": [], "ticks_until": 120.0,
    })  # fmt: skip
    made.faults.append({
        "kind": "pause-type", "target": "types", "at": 60.0, "ended": 65.0,
        "hit": {"tenant": "demo", "type": "soak.plain", "since": 60.0, "until": 65.0},
    })  # fmt: skip
    _processed(made, "plain", "soak.plain", 50.0)
    for number, at in enumerate((1.0, 1.5, 3.2)):
        _processed(made, f"limited{number}", "soak.limited", at, seconds=2.0)
        made.runs.append(_run(f"limited{number}", at, at + 1.9))
    made.runs[0]["ended"] = None  # killed; its event is taken away at 3.0
    for number, at in enumerate((1.0, 2.5, 4.0)):
        _processed(made, f"keyed{number}", "soak.keyed", at, has_effect=False, subject="s")
        made.runs.append(_run(f"keyed{number}", at, at + 0.9))
    for number, at in enumerate((1.0, 1.5, 3.0)):
        _processed(made, f"rated{number}", "soak.rated", at)
        made.runs.append(_run(f"rated{number}", at, at + 0.1))
    _processed(made, "later", "soak.later", 10.0, data={"until": 9.0})
    _processed(made, "steps", "soak.steps", 10.0, has_effect=False)
    made.step_calls = [{"event": "steps", "name": "first", "attempt": 1, "began": 10.1}]
    made.steps = [{"event": "steps", "name": name, "attempt": 1, "stored_at": 10.2} for name in ("first", "second")]
    _processed(made, "parent", "soak.parent", 10.0, data={"fails": 1})
    _processed(made, "child", "soak.child", 11.0, parent="parent")
    _processed(made, "fan", "soak.fan", 10.0, data={"fails": 0})
    _processed(made, "member", "soak.member", 11.0, data={"is_bad": False}, parent="fan")
    made.members = [{"event": "member", "group": "g", "parent": "fan"}]
    counted = {"group": "g", "processed": 1, "dead": 0, "discarded": 0}
    _processed(made, "joined", "soak.joined", 12.0, source="/holdfast/groups", ce_id="g", data=counted)
    _processed(made, "shared", "soak.shared", 10.0)
    _processed(made, "mirror", "soak.shared", 10.0, parent="shared", made_for="mirror")
    _processed(made, "tick", "soak.tick", 61.0, time=60.0)
    made.states.append(_state("early", "soak.debounced", "discarded", version=3, received_at=20.0))
    made.updates += [
        _update("early", 1, "queued", 20.0),
        _update("early", 3, "discarded", 21.0, reason="superseded", superseded_by="last"),
    ]
    _processed(made, "last", "soak.debounced", 24.0, received_at=21.0)
    _processed(made, "first", "soak.unique", 20.0)
    _processed(made, "second", "soak.unique", 26.0)
    made.left_out = [{"tenant": "demo", "source": "/s", "ce_id": "x", "event": "first", "asked_at": 24.0, "at": 24.1}]
    return made


def test_what_is_as_it_should_be_breaks_no_rule(history: History) -> None:
    assert check(history) == []


DAMAGES: dict[str, tuple[str, Damage]] = {
    "three ran at once": ("limit", lambda h: _moved(h, "limited2", 2.0)),
    "two of a key ran at once": ("limit", lambda h: _moved(h, "keyed1", 1.5)),
    "an event that is done holds a limit": ("limit", lambda h: _at(h.states, "limited0").update(held_limit="limit:x")),
    "three started within a window": ("limit", lambda h: _at(h.runs, "rated2").update(began=2.0)),
    "a paused event was claimed": ("pause", lambda h: _claimed(h, "plain", 61.0)),
    "an event ran before its time": ("early", lambda h: _at(h.states, "later").update(data={"until": 99.0})),
    "a stored step was called again": ("step", lambda h: h.steps[0].update(stored_at=9.0)),
    "a step is not stored": ("step", lambda h: h.steps.pop()),
    "an event that was cancelled began again": ("cancel", lambda h: h.answered.append({
        "tenant": "demo", "action": "cancel", "event": "plain", "key": "k", "status": 202, "answered": "plain", "at": 49.0,
        "is_duplicate": False,
    })),
    "a child is missing": ("lost", lambda h: _at(h.states, "child").update(parent=None)),
    "there is a child too many": ("doubled", lambda h: _processed(h, "another", "soak.child", 11.0, parent="parent")),
    "a group has no event": ("lost", lambda h: _at(h.states, "joined").update(ce_id="other")),
    "a group has two events": (
        "doubled", lambda h: _processed(h, "twice", "soak.joined", 12.0, source="/holdfast/groups", ce_id="g"),
    ),
    "a group counted wrongly": ("group", lambda h: _at(h.states, "joined")["data"].update(processed=0, dead=1)),
    "the further handler has no event": ("lost", lambda h: _at(h.states, "mirror").update(parent=None)),
    "the further handler has two": (
        "doubled", lambda h: _processed(h, "two", "soak.shared", 10.0, parent="shared", made_for="mirror"),
    ),
    "a tick is missing": ("tick", lambda h: h.run.update(ticks_until=180.0)),
    "a tick came twice": ("tick", lambda h: _processed(h, "tock", "soak.tick", 61.0, time=60.0)),
    "the last debounced event was left out": ("window", lambda h: _at(h.states, "last").update(received_at=19.0)),
    "a debounced event was not superseded": (
        "window", lambda h: _processed(h, "late", "soak.debounced", 25.0, received_at=22.0),
    ),
    "an event ran and was superseded": ("window", lambda h: h.updates.append(_update("early", 2, "processing", 20.5))),
    "a window had two events": ("window", lambda h: _at(h.states, "second").update(received_at=22.0)),
    "an event was left out after the window": ("window", lambda h: h.left_out[0].update(asked_at=26.0)),
    "one was answered with an event that is not there": ("lost", lambda h: h.left_out[0].update(event="nothing")),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_a_broken_promise_is_found(history: History, what: str) -> None:
    rule, damage = DAMAGES[what]

    damage(history)

    assert rule in {violation.rule for violation in check(history)}


def test_a_run_counts_until_its_event_was_taken_away(history: History) -> None:
    _at(history.updates, "limited0", version=3).update(at=6.0)

    assert "limit" in {violation.rule for violation in check(history)}


def test_a_claim_that_a_crash_of_postgresql_may_have_undone_holds_nothing(history: History) -> None:
    _at(history.updates, "limited0", version=3).update(at=6.0)
    history.faults.append({"kind": "crash-postgres", "target": "postgres", "at": 2.0, "ended": 2.5, "hit": None})

    assert check(history) == []


def _at(records: list[Record], event: str, **more: Any) -> Record:
    return next(each for each in records if ({"event": event} | more).items() <= each.items())


def _claimed(history: History, event: str, at: float) -> None:
    _at(history.updates, event, version=2).update(at=at)


def _ran(history: History, event: str, at: float) -> None:
    _claimed(history, event, at)
    _at(history.runs, event).update(began=at)


def _processed(
    history: History, event: str, type_: str, at: float, *, seconds: float = 1.0, has_effect: bool = True, **more: Any
) -> None:
    """An event that was claimed at a time, and processed after ``seconds``."""
    history.states.append(_state(event, type_, "processed", **{"received_at": at, "version": 3, **more}))
    history.updates += [
        _update(event, 1, "queued", 0.5),
        _update(event, 2, "processing", at, attempt=1),
        _update(event, 3, "processed", at + seconds, attempt=1),
    ]
    history.log.append({"event": event, "handler": "h", "attempt": 1, "result": {"attempt": 1}, "at": at + seconds})
    if has_effect:
        history.effects.append({"event": event, "attempt": 1, "at": at})


def _run(event: str, began: float, ended: float) -> Record:
    return {"event": event, "attempt": 1, "pid": 7, "began": began, "ended": ended}


def _state(event: str, type_: str, state: str, **more: Any) -> Record:
    return {
        "event": event, "tenant": "demo", "audience": None, "type": type_, "source": "/s", "subject": None, "ce_id": event,
        "state": state, "version": 3, "crashes": 0, "error": None, "received_at": 1.0, "lease_expires_at": None,
        "parent": None, "made_for": None, "held_limit": None, "data": None, "time": None, **more,
    }  # fmt: skip


def _update(event: str, version: int, state: str, at: float, **more: Any) -> Record:
    return {
        "event": event, "version": version, "state": state, "attempt": 0, "at": at, "reason": None, "superseded_by": None,
        "is_running": False, "is_published": True, **more,
    }  # fmt: skip


def _moved(history: History, event: str, at: float) -> None:
    """Let the event have been claimed, and its run have begun, at another time."""
    _at(history.runs, event).update(began=at)
    _claimed(history, event, at)
