"""The checker: what must be true of every history. Pure functions from a history to violations."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from holdfast.domain.position import Position
from holdfast.domain.transitions import MAX_CRASHES

from .history import History, Record, by_event
from .rules_flow import cancelled_for_good, limits_hold, not_before_their_time, pauses_hold, rates_hold, steps_once
from .rules_made import (
    debounced_to_the_last,
    emitted_once,
    groups_join_once,
    mirrored_once,
    ticked_once,
    unique_within,
)
from .rules_operators import asked_for, carried_out_once, copied_once, discards
from .violation import Rule, Violation

__all__ = ["RULES", "check"]

OPEN = frozenset({"queued", "processing", "failed"})

REASONS = {"soak.poison": "poison", "soak.nobody": "no_handler"}
"""Types that end as dead letters, and why. All others are processed."""

OUTSIDE, ORDERED = "soak.outside", "soak.ordered"
"""Types with an effect elsewhere, and with an order within each subject."""

CALLS = frozenset({OUTSIDE, "soak.async"})
"""Types that call another service, which is the table ``call``."""

WITHOUT_EFFECTS = CALLS | {"soak.progress", "soak.pool", "soak.keyed", "soak.steps"}
"""Types whose handlers have no transaction."""

REDIS_FORGETS = frozenset({"kill-redis", "empty-redis", "flush-redis"})


def lost(history: History) -> Iterator[Violation]:
    """Every 202 is in the database, under the id that was answered."""
    stored = {state["event"]: state for state in history.states}
    for answer in history.accepted:
        state = stored.get(answer["event"])
        if state is None:
            yield Violation("lost", answer["event"], "answered with 202 and not in the database")
        elif (state["tenant"], state["source"], state["ce_id"]) != _identity(answer):
            yield Violation("lost", answer["event"], f"the id was answered to {_identity(answer)} too")


def stuck(history: History) -> Iterator[Violation]:
    """Nothing is open at the end, no update waits to be published, and every service came back after the faults."""
    for service in history.run["unready"]:
        yield Violation("stuck", service, "not ready again after the faults")
    for state in history.states:
        if state["state"] in OPEN:
            yield Violation("stuck", state["event"], f"still {state['state']} ({state['type']}) at the end")
    for update in history.updates:
        if not update["is_published"]:
            yield Violation("stuck", update["event"], f"version {update['version']} still in the outbox at the end")


def unanswered(history: History) -> Iterator[Violation]:
    """Every event that a producer had is accepted in the end."""
    for answer in history.refused:
        yield Violation("unanswered", "/".join(_identity(answer)), f"last answer: {answer['status'] or 'none'}")


def doubled_events(history: History) -> Iterator[Violation]:
    """One identity is one event, however often it is sent."""
    ids = defaultdict(set)
    for answer in history.accepted:
        ids[_identity(answer)].add(answer["event"])
    for identity, events in ids.items():
        if len(events) > 1:
            yield Violation("doubled", "/".join(identity), f"accepted as {len(events)} events")


def doubled_effects(history: History) -> Iterator[Violation]:
    """One set of effects and one log entry for each processed event, none for any other."""
    effects = Counter(effect["event"] for effect in history.effects)
    entries = Counter(entry["event"] for entry in history.log)
    put_back = _put_back(history)
    for state in history.states:
        event, is_processed = state["event"], state["state"] == "processed"
        for what, count, wanted in (
            ("effects", effects[event], int(is_processed and state["type"] not in WITHOUT_EFFECTS)),
            ("entries in the log", entries[event], int(is_processed)),
        ):
            # An event that was put back by hand has its effects whatever becomes of it.
            if count > 1 or (count != wanted and not (count and put_back[event])):
                rule = "doubled" if count > wanted else "lost"
                yield Violation(rule, event, f"{count} {what} of an event that is {state['state']}")


def one_key_outside(history: History) -> Iterator[Violation]:
    """The other service saw one idempotency key of each event, and saw it at least once when the event is processed."""
    calls = by_event(history.calls)
    for state in history.states:
        keys = {call["key"] for call in calls.get(state["event"], [])}
        if len(keys) > 1:
            yield Violation("doubled", state["event"], f"{len(keys)} idempotency keys")
        elif not keys and state["type"] in CALLS and state["state"] == "processed":
            yield Violation("lost", state["event"], "processed without its call to the other service")


def in_order(history: History) -> Iterator[Violation]:
    """Effects of ordered events are in the order of arrival within their subject."""
    about = {state["event"]: state for state in history.states if state["type"] == ORDERED}
    arrived: dict[tuple[str, str, str], float] = {}
    for effect in history.effects:
        if state := about.get(effect["event"]):
            lane = (state["tenant"], state["source"], state["subject"])
            if state["received_at"] < arrived.get(lane, 0.0):
                yield Violation("order", effect["event"], f"after a younger event of {lane}")
            arrived[lane] = max(state["received_at"], arrived.get(lane, 0.0))


def settled_once(history: History) -> Iterator[Violation]:
    """An event becomes processed once, and once more for each time it was put back by hand."""
    put_back = _put_back(history)
    settles = Counter(update["event"] for update in history.updates if update["state"] == "processed")
    for event, count in settles.items():
        if count > 1 + put_back[event]:
            yield Violation("doubled", event, f"settled {count} times")


def settled_by_the_holder(history: History) -> Iterator[Violation]:
    """Result and effects are those of the attempt that held the lease: a worker that lost it changes nothing."""
    effects = by_event(history.effects)
    for entry in history.log:
        attempts = {
            (entry["result"] or {}).get("attempt"),
            *(each["attempt"] for each in effects.get(entry["event"], [])),
        }
        if attempts != {entry["attempt"]}:
            what = f"attempt {entry['attempt']} was settled with the work of {sorted(map(str, attempts))}"
            yield Violation("fence", entry["event"], what)


def dead_for_a_reason(history: History) -> Iterator[Violation]:
    """Dead letters are those that were sent to be, and events that were really under a crash three times."""
    for state in history.states:
        expected = "bad_member" if _is_bad(state) else REASONS.get(state["type"])
        is_crash_loop = state["error"] == "crash_loop" and state["crashes"] >= MAX_CRASHES
        if state["state"] == "dead" and state["error"] != expected and not is_crash_loop:
            yield Violation("dead", state["event"], f"{state['type']} is dead: {state['error']}")
        elif state["state"] == "processed" and expected is not None:
            yield Violation("dead", state["event"], f"{state['type']} was processed")


def versions_rise_by_one(history: History) -> Iterator[Violation]:
    """The history of an event has every version, except those that were made by hand or skipped by a discard."""
    absent = _put_back(history) + discards(history)
    updates = by_event(history.updates)
    for state in history.states:
        versions = [update["version"] for update in updates.get(state["event"], [])]
        missing = state["version"] - len(set(versions))
        if len(set(versions)) != len(versions) or missing != absent[state["event"]] or max(versions) > state["version"]:
            yield Violation("history", state["event"], f"version {state['version']} with the updates {versions}")


def leases_end(history: History) -> Iterator[Violation]:
    """Once the faults are over and every service is back, no lease gets older than twice its length."""
    calm, longest = history.run["calm_since"], 2 * history.run["lease_seconds"]
    for event, updates in by_event(history.updates).items():
        ends = [update["at"] for update in updates[1:]] + [history.run["ended"]]
        for update, end in zip(updates, ends, strict=True):
            age = end - max(update["at"], calm)
            if update["state"] == "processing" and age > longest:
                yield Violation("lease", event, f"version {update['version']} was leased for {age:.1f} s in calm")


def live_in_order(history: History) -> Iterator[Violation]:
    """Per client and topic: offsets contiguous within an epoch, resumes exact, nothing twice, and a gap where it is not."""
    for client, frames in _per_client(history.frames):
        places: dict[str, _Place] = {}
        for frame in frames:
            if frame["kind"] in ("update", "subscribed", "gap"):
                place = places.setdefault(frame["topic"], _Place())
                if wrong := place.move(frame):
                    yield Violation("live-order", f"{client} {frame['topic']}", wrong)


def gaps_explained(history: History) -> Iterator[Violation]:
    """A client is told that Redis may have forgotten updates only when Redis was restarted or flushed: once each time."""
    times = sum(fault["kind"] in REDIS_FORGETS for fault in history.faults)
    gaps = Counter(
        (frame["client"], frame["topic"])
        for frame in history.frames
        if frame["kind"] == "gap" and frame["reason"] == "epoch"
    )
    for (client, topic), count in gaps.items():
        if count > times:
            yield Violation(
                "live-gap", f"{client} {topic}", f"{count} gaps by epoch, and Redis lost its data {times} times"
            )


def live_ends_like_the_database(history: History) -> Iterator[Violation]:
    """The newest that each client knows of each event it may see is what the database says."""
    known = {client["client"]: _known(frames) for client, frames in _clients(history)}
    for client in history.clients:
        knows = known[client["client"]]
        for state in history.states:
            is_shown = state["tenant"] == client["tenant"] and _shows(client["topics"], state)
            stands, told = (state["version"], state["state"]), knows.pop(state["event"], (0, "nothing"))
            if is_shown and told != stands:
                yield Violation(
                    "live-state", f"{client['client']} {state['event']}", f"was told {told}, database: {stands}"
                )
            elif not is_shown and told[0]:
                yield Violation(
                    "live-state", f"{client['client']} {state['event']}", "was told of an event that it may not see"
                )


RULES: tuple[Rule, ...] = (
    lost, stuck, unanswered, doubled_events, doubled_effects, one_key_outside, in_order, settled_once,
    settled_by_the_holder, dead_for_a_reason, versions_rise_by_one, leases_end, live_in_order, gaps_explained,
    live_ends_like_the_database, carried_out_once, copied_once, asked_for, cancelled_for_good, limits_hold, rates_hold,
    pauses_hold, not_before_their_time, steps_once, emitted_once, groups_join_once, mirrored_once, ticked_once,
    debounced_to_the_last, unique_within,
)  # fmt: skip


def check(history: History) -> list[Violation]:
    """Every violation of every rule."""
    return [violation for rule in RULES for violation in rule(history)]


class _Place:
    """Where a client stands in a topic."""

    def __init__(self) -> None:
        self._at: Position | None = None
        self._seen: set[tuple[str, int, int]] = set()

    def move(self, frame: Record) -> str | None:
        """Take the next frame; returns what is wrong with it."""
        pos, before = Position.parse(frame["pos"]), self._at
        self._at = pos
        if frame["kind"] == "gap":
            self._seen.clear()
            return None
        if frame["kind"] == "subscribed":
            is_wrong = before is not None and pos != before
            return f"subscribed at {pos} while at {before}, without a gap" if is_wrong else None
        told = (frame["event"], frame["version"], frame["step"])
        is_repeated = told in self._seen
        self._seen.add(told)
        if before is None or pos != Position(before.epoch, before.offset + 1):
            return f"an update at {pos} after {before}, without a gap"
        return f"event {told[0]} version {told[1]} step {told[2]} twice" if is_repeated else None


def _is_bad(state: Record) -> bool:
    return state["type"] == "soak.member" and bool(state["data"]["is_bad"])


def _put_back(history: History) -> Counter[str]:
    """How often each event was put back in the queue by hand."""
    return Counter(event for fault in history.faults if fault["kind"] == "requeue" for event in fault["hit"])


def _identity(record: Record) -> tuple[str, str, str]:
    return record["tenant"], record["source"], record["ce_id"]


def _per_client(frames: Iterable[Record]) -> Iterator[tuple[str, list[Record]]]:
    grouped: dict[str, list[Record]] = defaultdict(list)
    for frame in frames:
        grouped[frame["client"]].append(frame)
    yield from grouped.items()


def _clients(history: History) -> Iterator[tuple[Record, list[Record]]]:
    frames = dict(_per_client(history.frames))
    for client in history.clients:
        yield client, frames.get(client["client"], [])


def _known(frames: Iterable[Record]) -> dict[str, tuple[int, str]]:
    known: dict[str, tuple[int, str]] = {}
    for frame in frames:
        if frame["kind"] in ("update", "fetched") and frame["version"] > known.get(frame["event"], (0, ""))[0]:
            known[frame["event"]] = (frame["version"], frame["state"])
    return known


def _shows(topics: Iterable[str], state: Record) -> bool:
    return f"tenant:{state['tenant']}" in topics or f"audience:{state['audience']}" in topics
