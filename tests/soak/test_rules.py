"""The checker on small histories made by hand: it says nothing about a good one, and finds each broken promise."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from .figures import figures
from .history import History
from .rules import check

EVENT, POISON, OUTSIDE = "e1", "e2", "e3"


@pytest.fixture
def history() -> History:
    """An event that is processed at its second attempt, after a crash, and one that is rejected, both seen by a client; and
    one of another tenant that called another service twice."""
    return History(
        run={
            "seed": 1,
            "lease_seconds": 3.0,
            "began": 0.0,
            "faults_ended": 50.0,
            "calm_since": 55.0,
            "ended": 60.0,
            "unready": [],
        },
        accepted=[
            _answer("1", EVENT),
            _answer("1", EVENT, is_duplicate=True),
            _answer("2", POISON),
            _answer("1", OUTSIDE, tenant="acme"),
        ],
        faults=[{"kind": "kill", "target": "processor", "at": 2.0, "ended": 2.0, "hit": 7}],
        states=[
            _state(EVENT, "1", "soak.plain", "processed", 5, attempt=2, crashes=1),
            _state(POISON, "2", "soak.poison", "dead", 3, attempt=1, error="poison"),
            _state(OUTSIDE, "1", "soak.outside", "processed", 3, attempt=1, tenant="acme"),
        ],
        updates=[
            _update(EVENT, 1, "queued", 1.0),
            _update(EVENT, 2, "processing", 1.5, attempt=1),
            _update(EVENT, 3, "queued", 5.0, reason="recovered", attempt=1),
            _update(EVENT, 4, "processing", 7.0, attempt=2),
            _update(EVENT, 5, "processed", 7.5, attempt=2),
            _update(POISON, 1, "queued", 1.0),
            _update(POISON, 2, "processing", 1.1, attempt=1),
            _update(POISON, 3, "dead", 1.2, attempt=1),
            _update(OUTSIDE, 1, "queued", 1.0),
            _update(OUTSIDE, 2, "processing", 1.1, attempt=1),
            _update(OUTSIDE, 3, "processed", 1.2, attempt=1),
        ],
        log=[_entry(EVENT, "plain", attempt=2), _entry(OUTSIDE, "outside", attempt=1)],
        effects=[{"event": EVENT, "attempt": 2, "at": 7.4}],
        calls=[{"event": OUTSIDE, "key": "k"}, {"event": OUTSIDE, "key": "k"}],
        clients=[{"client": "c", "tenant": "demo", "topics": ["tenant:demo"]}],
        frames=[
            _frame("subscribed", "a:0", recovered=None),
            _seen(1, EVENT, 1, "queued"),
            _seen(2, POISON, 1, "queued"),
            _seen(3, POISON, 2, "processing"),
            _seen(4, POISON, 3, "dead"),
            _frame("lost"),
            _seen(5, EVENT, 2, "processing"),
            _frame("subscribed", "a:5", recovered=True),
            _frame("gap", "b:2", reason="epoch"),
            _frame("subscribed", "b:2", recovered=False),
            {"client": "c", "at": 0.0, "kind": "fetched", "event": EVENT, "version": 4, "state": "processing"},
            _seen(3, EVENT, 5, "processed", epoch="b"),
        ],
    )


def test_a_good_history_breaks_no_rule(history: History) -> None:
    history.faults.append({"kind": "flush-redis", "target": "redis", "at": 6.0, "ended": 6.0, "hit": None})

    assert check(history) == []


def _drop(records: list[dict[str, Any]], **which: Any) -> None:
    records[:] = [record for record in records if not which.items() <= record.items()]


Damage = Callable[[History], object]

DAMAGES: dict[str, tuple[str, Damage]] = {
    "an accepted event is not in the database": ("lost", lambda h: _drop(h.states, event=EVENT)),
    "an event is open at the end": ("stuck", lambda h: h.states[0].update(state="processing")),
    "an update is in the outbox at the end": ("stuck", lambda h: h.updates[0].update(is_published=False)),
    "a service did not come back": ("stuck", lambda h: h.run["unready"].append("processor")),
    "a producer was never answered": (
        "unanswered",
        lambda h: h.refused.append({"tenant": "demo", "source": "/s", "ce_id": "9", "status": 0, "at": 1.0}),
    ),
    "one identity was accepted as two events": ("doubled", lambda h: h.accepted.append(_answer("1", POISON))),
    "an effect is there twice": ("doubled", lambda h: h.effects.append(dict(h.effects[0]))),
    "another service saw two keys": ("doubled", lambda h: h.calls.append({"event": OUTSIDE, "key": "another"})),
    "another service was never called": ("lost", lambda h: h.calls.clear()),
    "a log entry is there twice": ("doubled", lambda h: h.log.append(dict(h.log[0]))),
    "a rejected event left an effect": ("doubled", lambda h: h.effects.append({"event": POISON, "attempt": 1, "at": 1.0})),
    "the effect of a processed event is gone": ("lost", lambda h: h.effects.clear()),
    "an event was settled twice": (
        "doubled", lambda h: h.updates.extend([_update(EVENT, 6, "processed", 8.0)]),
    ),
    "the attempt that lost its lease settled": ("fence", lambda h: h.log[0].update(result={"attempt": 1})),
    "the attempt that lost its lease left the effect": ("fence", lambda h: h.effects[0].update(attempt=1)),
    "an event is dead though nothing is wrong with it": (
        "dead", lambda h: h.states[1].update(type="soak.plain", error="RuntimeError"),
    ),
    "an event is in a crash loop without three crashes": (
        "dead", lambda h: h.states[1].update(error="crash_loop", crashes=2),
    ),
    "a poisonous event was processed": ("dead", lambda h: h.states[0].update(type="soak.poison")),
    "the history lacks a version": ("history", lambda h: _drop(h.updates, event=EVENT, version=3)),
    "a lease went on and on in calm": (
        "lease", lambda h: (h.updates[3].update(at=55.0), h.updates[4].update(at=62.0)),
    ),
    "a client missed an update without a gap": ("live-order", lambda h: _drop(h.frames, kind="update", pos="a:3")),
    "a client received an update twice": ("live-order", lambda h: h.frames.insert(5, dict(h.frames[4]))),
    "a client received one update at two places": ("live-order", lambda h: h.frames[4].update(h.frames[3] | {"pos": "a:4"})),
    "a client received updates out of order": ("live-order", lambda h: h.frames.insert(3, h.frames.pop(1))),
    "a client resumed somewhere else": ("live-order", lambda h: h.frames[7].update(pos="a:6")),
    "a client was told of a gap that nothing explains": (
        "live-gap",
        lambda h: h.faults.clear(),
    ),
    "a client ended with an older state": ("live-state", lambda h: h.frames.pop()),
    "a client never heard of an event": ("live-state", lambda h: _drop(h.frames, event=POISON)),
    "a client was told of an event that is not its own": ("live-state", lambda h: h.states[0].update(tenant="acme")),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_a_broken_promise_is_found(history: History, what: str) -> None:
    history.faults.append({"kind": "flush-redis", "target": "redis", "at": 6.0, "ended": 6.0, "hit": None})
    rule, damage = DAMAGES[what]

    damage(history)

    assert rule in {violation.rule for violation in check(history)}


def test_an_event_put_back_by_hand_may_settle_again_but_leaves_one_effect(history: History) -> None:
    history.faults += [
        {"kind": "flush-redis", "target": "redis", "at": 6.0, "ended": 6.0, "hit": None},
        {"kind": "requeue", "target": "postgres", "at": 8.0, "ended": 8.0, "hit": [EVENT]},
    ]
    history.updates += [_update(EVENT, 7, "processing", 9.0, attempt=1), _update(EVENT, 8, "processed", 9.1, attempt=1)]
    history.states[0].update(version=8, attempt=1)
    history.frames += [
        _seen(4, EVENT, 7, "processing", epoch="b"), _seen(5, EVENT, 8, "processed", epoch="b"),
    ]  # fmt: skip

    assert check(history) == []
    history.effects.append({"event": EVENT, "attempt": 1, "at": 9.1})
    assert {violation.rule for violation in check(history)} == {"doubled", "fence"}


@pytest.fixture
def operated(history: History) -> History:
    """The rejected event is replayed, dies again and is discarded, and the other one is copied, each by a request."""
    history.faults.append({"kind": "flush-redis", "target": "redis", "at": 6.0, "ended": 6.0, "hit": None})
    history.asked += [_asked("replay", POISON, "k1"), _asked("discard", POISON, "k2"), _asked("replay", EVENT, "k3")]
    history.answered += [
        _answered("replay", POISON, "k1", POISON), _answered("discard", POISON, "k2", POISON),
        _answered("replay", EVENT, "k3", "e4"),
    ]  # fmt: skip
    history.accepted.append(_answer(f"replay:{EVENT}:k3", "e4"))
    history.updates += [
        _update(POISON, 4, "queued", 20.0, reason="replayed"),
        _update(POISON, 5, "processing", 20.1, attempt=1),
        _update(POISON, 6, "dead", 20.2, attempt=1),
        _update(POISON, 8, "discarded", 21.0, attempt=1),
        _update("e4", 1, "queued", 22.0),
        _update("e4", 2, "processing", 22.1, attempt=1),
        _update("e4", 3, "processed", 22.2, attempt=1),
    ]
    history.states[1].update(state="discarded", version=8)
    history.states.append(_state("e4", f"replay:{EVENT}:k3", "soak.plain", "processed", 3, attempt=1))
    history.log.append(_entry("e4", "plain", attempt=1))
    history.effects.append({"event": "e4", "attempt": 1, "at": 22.2})
    history.frames += [
        _seen(4, POISON, 4, "queued", epoch="b"), _seen(5, POISON, 5, "processing", epoch="b"),
        _seen(6, POISON, 6, "dead", epoch="b"), _seen(7, POISON, 8, "discarded", epoch="b"),
        _seen(8, "e4", 1, "queued", epoch="b"), _seen(9, "e4", 3, "processed", epoch="b"),
    ]  # fmt: skip
    return history


def test_what_operators_asked_for_breaks_no_rule(operated: History) -> None:
    assert check(operated) == []


OPERATED: dict[str, tuple[str, Damage]] = {
    "a request was answered and did nothing": ("operated", lambda h: _drop(h.updates, event=POISON, version=4)),
    "a request was carried out twice": (
        "operated", lambda h: h.updates.append(_update(POISON, 9, "queued", 23.0, reason="replayed")),
    ),
    "one request moved its event and copied it": ("doubled", lambda h: h.answered[2].update(answered=EVENT)),
    "an event was discarded and nobody asked": ("operated", lambda h: h.asked.pop(1)),
    "a discard skipped no version": ("history", lambda h: h.states[1].update(version=7)),
    "a copy is not there": ("lost", lambda h: h.states.pop()),
    "a client did not hear of a discard": ("live-state", lambda h: _drop(h.frames, state="discarded")),
}  # fmt: skip


@pytest.mark.parametrize("what", OPERATED)
def test_a_broken_promise_to_an_operator_is_found(operated: History, what: str) -> None:
    rule, damage = OPERATED[what]

    damage(operated)

    assert rule in {violation.rule for violation in check(operated)}


def test_events_of_one_subject_have_their_effects_in_the_order_of_arrival(history: History) -> None:
    lane = {"type": "soak.ordered", "tenant": "demo", "source": "/s", "subject": "x"}
    history.states[0].update(lane, received_at=1.0)
    history.states[2].update(lane, received_at=2.0)
    first, second = {"event": EVENT, "attempt": 1, "at": 3.0}, {"event": OUTSIDE, "attempt": 1, "at": 4.0}

    history.effects[:] = [first, second]
    assert "order" not in {violation.rule for violation in check(history)}

    history.effects[:] = [second, first]
    assert "order" in {violation.rule for violation in check(history)}


def test_the_figures_say_how_long_an_event_waited_for_its_rescue(history: History) -> None:
    counted = figures(history, check(history))

    assert (counted["accepted"], counted["processed"], counted["dead"]) == (3, 2, 1)
    assert counted["calls_repeated"] == 1
    assert (counted["recovered"], counted["kills"], counted["duplicates"]) == (1, 1, 1)
    assert (counted["recover_worst_seconds"], counted["settle_worst_seconds"]) == (3.0, 5.5)


def test_the_rules_leave_the_history_as_it_is(history: History) -> None:
    before = copy.deepcopy(history)

    check(history)

    assert history == before


def _answer(ce_id: str, event: str, *, is_duplicate: bool = False, tenant: str = "demo") -> dict[str, Any]:
    return {
        "tenant": tenant, "source": "/s", "ce_id": ce_id, "event": event, "is_duplicate": is_duplicate, "at": 1.0,
    }  # fmt: skip


def _asked(action: str, event: str, key: str) -> dict[str, Any]:
    return {"tenant": "demo", "action": action, "event": event, "key": key, "at": 19.0}


def _answered(action: str, event: str, key: str, answered: str) -> dict[str, Any]:
    return _asked(action, event, key) | {"status": 202, "answered": answered, "is_duplicate": False}


def _entry(event: str, handler: str, *, attempt: int) -> dict[str, Any]:
    return {"event": event, "handler": handler, "attempt": attempt, "result": {"attempt": attempt}, "at": 7.5}


def _state(event: str, ce_id: str, type_: str, state: str, version: int, **more: Any) -> dict[str, Any]:
    return {
        "event": event, "tenant": "demo", "audience": None, "type": type_, "source": "/s", "subject": None, "ce_id": ce_id,
        "state": state, "version": version, "crashes": 0, "error": None, "received_at": 1.0, "lease_expires_at": None,
        "parent": None, "made_for": None, "held_limit": None, "data": None, "time": None, **more,
    }  # fmt: skip


def _update(
    event: str, version: int, state: str, at: float, *, attempt: int = 0, reason: str | None = None
) -> dict[str, Any]:
    return {
        "event": event, "version": version, "state": state, "attempt": attempt, "at": at, "reason": reason,
        "superseded_by": None, "is_running": False, "is_published": True,
    }  # fmt: skip


def _frame(kind: str, pos: str | None = None, **more: Any) -> dict[str, Any]:
    return {"client": "c", "at": 0.0, "kind": kind, **({"topic": "tenant:demo", "pos": pos} if pos else {}), **more}


def _seen(offset: int, event: str, version: int, state: str, *, epoch: str = "a") -> dict[str, Any]:
    return _frame("update", f"{epoch}:{offset}", event=event, version=version, step=0, state=state)
