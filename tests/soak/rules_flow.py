"""Rules for what runs when: limits, rates, pauses, times, cancels, and the steps of handlers."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from .history import History, Record, by_event
from .violation import Violation

__all__ = ["cancelled_for_good", "limits_hold", "not_before_their_time", "pauses_hold", "rates_hold", "steps_once"]

LIMITS: dict[str, tuple[int, Callable[[Record], object]]] = {
    "soak.limited": (2, lambda _: "all"),
    "soak.keyed": (1, lambda state: (state["tenant"], state["subject"])),
}
"""Type → how many may run at once of each key."""

RATES = {"soak.rated": (2, 2.0)}
"""Type → how many may start within so many seconds."""

SLACK_SECONDS = 0.25
"""Between the moment that counts for a rate, or a pause, and the one that is recorded."""

POSTGRES_FORGETS = frozenset({"kill-backend", "crash-postgres"})
"""Faults after which a claim may not have happened: its commit was not durable."""

ENDS = frozenset({"processed", "dead", "discarded"})


def limits_hold(history: History) -> Iterator[Violation]:
    """No more events of a limit run at once than may, and an event that does not run holds none."""
    about = {state["event"]: state for state in history.states}
    edges = defaultdict[tuple[str, object], list[tuple[float, int, tuple[str, int]]]](list)
    for event, claim, began, ended in _held_runs(history):
        if event in about and (type_ := about[event]["type"]) in LIMITS:
            key = (type_, LIMITS[type_][1](about[event]))
            edges[key] += [(began, 1, (event, claim)), (ended, -1, (event, claim))]
    for (type_, what), of_key in edges.items():
        running, most = Counter[tuple[str, int]](), 0
        for _, step, run in sorted(of_key, key=lambda edge: edge[:2]):
            running[run] += step
            most = max(most, sum(count > 0 for count in running.values()))
        if most > LIMITS[type_][0]:
            yield Violation("limit", f"{type_} {what}", f"{most} ran at once, and {LIMITS[type_][0]} may")
    for state in history.states:
        if state["held_limit"] is not None and state["state"] != "processing":
            yield Violation("limit", state["event"], f"holds {state['held_limit']} and is {state['state']}")


def rates_hold(history: History) -> Iterator[Violation]:
    """No more attempts start within the window of a rate than may."""
    types = {state["event"]: state["type"] for state in history.states}
    for type_, (count, seconds) in RATES.items():
        starts = sorted(
            run["began"] for run in history.runs if types.get(run["event"]) == type_ and not _came_back(history, run)
        )
        for first, last in zip(starts, starts[count:], strict=False):
            if last - first < seconds - SLACK_SECONDS:
                yield Violation("limit", type_, f"{count + 1} starts within {last - first:.2f} s at {first:.2f}")


def pauses_hold(history: History) -> Iterator[Violation]:
    """No event of a paused type is claimed."""
    about = {state["event"]: state for state in history.states}
    paused = [fault["hit"] for fault in history.faults if fault["kind"] == "pause-type" and fault["hit"]]
    for update in history.updates:
        state = about.get(update["event"])  # the rule "lost" tells of those that are not there
        if state is None or update["state"] != "processing":
            continue
        for pause in paused:
            is_its = (state["tenant"], state["type"]) == (pause["tenant"], pause["type"])
            if is_its and pause["since"] + SLACK_SECONDS < update["at"] < pause["until"]:
                yield Violation("pause", update["event"], f"{state['type']} was claimed at {update['at']:.2f}: {pause}")


def not_before_their_time(history: History) -> Iterator[Violation]:
    """What is to wait for a time has its effects after it."""
    until = {state["event"]: (state["data"] or {}).get("until", 0.0) for state in history.states}
    for effect in history.effects:
        if effect["at"] < until.get(effect["event"], 0.0):
            early = until[effect["event"]] - effect["at"]
            yield Violation("early", effect["event"], f"{early:.2f} s before its time")


def steps_once(history: History) -> Iterator[Violation]:
    """An attempt does not call a step that was stored before it began, and a processed event has both steps."""
    stored = {(step["event"], step["name"]): step["stored_at"] for step in history.steps}
    updates = by_event(history.updates)
    for call in history.step_calls:
        claim = _claim_at(updates.get(call["event"], []), call["began"])
        is_its = claim is not None and claim["attempt"] == call["attempt"]
        if claim is not None and is_its and stored.get((call["event"], call["name"]), claim["at"]) < claim["at"]:
            yield Violation("step", call["event"], f"{call['name']} was called again by attempt {call['attempt']}")
    for state in history.states:
        if state["type"] == "soak.steps" and state["state"] == "processed":
            for name in ("first", "second"):
                if (state["event"], name) not in stored:
                    yield Violation("step", state["event"], f"processed without the step {name}")


def cancelled_for_good(history: History) -> Iterator[Violation]:
    """An event whose cancel was answered is not begun again, unless somebody replays it."""
    updates = by_event(history.updates)
    put_back = {event for fault in history.faults if fault["kind"] == "requeue" for event in fault["hit"]}
    for answer in history.answered:
        if answer["action"] == "cancel" and answer["status"] == 202 and answer["event"] not in put_back:
            for update in updates.get(answer["event"], []):
                if update["at"] > answer["at"] and (update["state"] in ENDS or update["reason"] == "replayed"):
                    break
                if update["at"] > answer["at"] and update["state"] == "processing":
                    yield Violation("cancel", answer["event"], f"begun again as version {update['version']}")
                    break


def _held_runs(history: History) -> Iterator[tuple[str, int, float, float]]:
    """Event, version of its claim, and from when to when it ran under that, for each run that had one.

    A run that was killed, or goes on in a process that has lost its event, counts until the event was taken away: nobody
    may have its place before. Where PostgreSQL crashed and may have forgotten the claim, it counts until then.
    """
    updates = by_event(history.updates)
    crashes = sorted(fault["at"] for fault in history.faults if fault["kind"] in POSTGRES_FORGETS)
    for run in history.runs:
        of_event = updates.get(run["event"], [])
        claim = _claim_at(of_event, run["began"])
        if claim is not None and claim["attempt"] == run["attempt"]:
            later = [update["at"] for update in of_event if update["version"] > claim["version"]]
            forgotten = [at for at in crashes if at >= run["began"]]
            ends = [run["ended"], *later[:1], *forgotten[:1], history.run["ended"]]
            yield run["event"], claim["version"], run["began"], min(end for end in ends if end is not None)


def _claim_at(updates: list[Record], at: float) -> Record | None:
    """The claim that an event was under at a time, if it was under one."""
    last = None
    for update in itertools.takewhile(lambda each: each["at"] <= at, updates):
        last = update
    return last if last is not None and last["state"] == "processing" else None


def _came_back(history: History, run: Record) -> bool:
    """Whether its process was stopped by a fault just then: it had its start before."""
    return any(
        fault["kind"] == "pause" and fault["hit"] == run["pid"] and fault["at"] <= run["began"] <= fault["ended"] + 1.0
        for fault in history.faults
    )
