"""What an operator asks, and how the answer is found: by the ``holdfast`` command, and in the console.

Each function returns the answer as a sentence, or raises: what cannot be found, or is wrong, is no answer.
"""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from bench.tour_desk import NAME, Desk

__all__ = ["QUESTIONS", "Ask", "Question"]

MAIN_CAUSE, ITS_HANDLER = "KeyError", "book-order"

GROUPS = {"command": "KeyError", "console": "TimeoutError"}
"""Which dead letters are replayed with what."""

DISCARDED = {"command": "SMTPServerDisconnected", "console": "crash_loop"}

RATE = "100"

Ask = Callable[[Desk], str]
"""Finds the answer, and returns it."""


@dataclass(frozen=True, slots=True)
class Question:
    """``command`` and ``console``: the two ways to the answer."""

    text: str
    command: Ask
    console: Ask


def main_cause(desk: Desk) -> str:
    groups = desk.listed("dead", "groups")
    _expect((groups[0]["error_type"], groups[0]["handler"]) == (MAIN_CAUSE, ITS_HANDLER), str(groups[0]))
    return f"{groups[0]['count']} of {sum(each['count'] for each in groups)}: {MAIN_CAUSE} in {ITS_HANDLER}"


def main_cause_in_console(desk: Desk) -> str:
    page = desk.console.get("/dead-letters").text
    [first, *others] = re.findall(r'<tr id="g\d+">.*?</tr>', page, re.DOTALL)
    _expect(len(others) >= 3 and MAIN_CAUSE in first and ITS_HANDLER in first, first)
    return f"the first of {1 + len(others)} rows: {MAIN_CAUSE} in {ITS_HANDLER}"


def replay_group(desk: Desk) -> str:
    cause = GROUPS["command"]
    started = json.loads(desk.command("replay", "--error-type", cause, "--rate", RATE, "-o", "json"))
    followed = desk.listed("replays", "show", "--follow", started["replay_id"])
    left = [each for each in desk.listed("dead", "groups") if each["error_type"] == cause]
    _expect(followed[-1]["state"] == "done" and left == [], f"{followed[-1]}, {left}")
    return f"{followed[-1]['replayed']} replayed, seen {len(followed)} times on their way"


def replay_group_in_console(desk: Desk) -> str:
    form = f"/replays/new?state=dead&error_type={GROUPS['console']}"
    count = re.search(r"Replay (\d+) events\?", desk.console.text(form))
    progress = _started(desk, "/replays", form, {"rate_per_s": RATE})
    _expect(count is not None and f"{count[1]} replayed, 0 skipped, 0 to go" in progress, progress)
    return f"counted and replayed {count[1] if count else 0}"


def discard_group(desk: Desk) -> str:
    cause = DISCARDED["command"]
    before = _dead(desk, cause)
    started = json.loads(desk.command("discard", "--error-type", cause, "--yes", "-o", "json"))
    desk.wait(lambda: _dead(desk, cause) == 0, what=f"no {cause} is left")
    _expect(started["total"] == before > 0, f"{started['total']} of {before}")
    return f"{before} discarded"


def discard_group_in_console(desk: Desk) -> str:
    form = f"/discards/new?state=dead&error_type={DISCARDED['console']}"
    _started(desk, "/discards", form, {"rate_per_s": RATE})
    desk.wait(lambda: _dead(desk, DISCARDED["console"]) == 0, what=f"no {DISCARDED['console']} is left")
    return "all discarded"


def why_late(desk: Desk) -> str:
    waiting = json.loads(desk.command("why", desk.late, "-o", "json"))["waiting"]
    _expect((waiting["reason"], waiting["ahead"], waiting["front"]["state"]) == ("turn", 3, "failed"), str(waiting))
    return str(waiting["summary"])


def why_late_in_console(desk: Desk) -> str:
    page = desk.console.text(f"/events/{desk.late}")
    _expect("3 events of subject customer-1 ahead" in page, page[:500])
    return "3 events of its subject are ahead"


def slow_handler(desk: Desk) -> str:
    rows = [row for row in desk.listed("handlers", "ls") if row.get("kind") == "handler"]
    slowest = max(rows, key=lambda row: row["run"]["p95_ms"] or 0)
    _expect(slowest["name"] == "make-invoice" and slowest["run"]["p95_ms"] > 250, str(slowest))
    return f"make-invoice, p95 {slowest['run']['p95_ms']:.0f} ms"


def slow_handler_in_console(desk: Desk) -> str:
    page = desk.console.get("/handlers?window=hour").text
    row = re.search(r"<strong>make-invoice</strong>.*?</span>", page, re.DOTALL)
    _expect(row is not None and "the slowest" in row[0], "make-invoice is not called the slowest")
    return "make-invoice is called the slowest"


def last_hour(desk: Desk) -> str:
    hour = json.loads(desk.command("stats", "-o", "json").splitlines()[0])["stats"]["last_hour"]
    _expect(hour["accepted"] >= 52 and hour["failed"] >= 1, str(hour))
    return f"{hour['accepted']} accepted, {hour['processed']} processed, {hour['failed']} failed, {hour['dead']} dead"


def last_hour_in_console(desk: Desk) -> str:
    page = desk.console.get("/?window=hour").text
    table = re.search(r"<h3>Accepted and processed</h3>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    cells = re.findall(
        r'<td class="right number">([\d\u202f]+)</td><td class="right number">', table[1] if table else ""
    )
    accepted = sum(int(each.replace("\u202f", "")) for each in cells)
    _expect(accepted >= 52, f"the chart has {accepted} accepted events")
    return f"the chart has {accepted} accepted events"


def who_replayed(desk: Desk) -> str:
    entry, *_ = desk.listed("audit", "--action", "start_replay", "--actor", NAME, "--limit", "5")
    _expect(entry["detail"]["filter"]["error_type"] in GROUPS.values() and entry["origin"] == "127.0.0.1", str(entry))
    return f"{entry['actor']['name']}, {entry['detail']['total']} events of one cause, from {entry['origin']}"


def who_replayed_in_console(desk: Desk) -> str:
    page = desk.console.text(f"/audit?action=start_replay&actor={NAME}")
    _expect("start replay" in page and NAME in page and GROUPS["console"] in page, page[:500])
    return f"{NAME}, with the filter of the group"


def rotate_key(desk: Desk) -> str:
    old = desk.command("keys", "create", "--name", "shop").strip()
    new = desk.command("keys", "rotate", old.split("_")[1], "--overlap", "1h").strip()
    for key in (old, new):
        desk.command("events", "ls", "--limit", "1", key=key)
    [listed] = [each for each in desk.listed("keys", "ls") if each["key_id"] == old.split("_")[1]]
    _expect(listed["replaced_by"] == new.split("_")[1], str(listed))
    return "both work for an hour, and the list says which replaces which"


def rotate_key_in_console(desk: Desk) -> str:
    old = desk.stack.create_key("acme", name="console's own", scopes=("events:read",)).split("_")[1]
    shown = desk.console.send(f"/keys/{old}/rotate", {"overlap": "3600"}, form=f"/keys/{old}")
    new = re.search(r"hf_[a-z0-9]{12}_[\w-]+", shown.text)
    _expect(new is not None, f"no key on the page, status {shown.status_code}")
    desk.command("events", "ls", "--limit", "1", key=new[0] if new else "")
    return "the new key is shown, and works"


def drain_node(desk: Desk) -> str:
    node = _processor(desk)
    desk.command("workers", "drain", node, "--wait", "--timeout", "50")
    [waits] = desk.send("com.example.ordered")
    why = json.loads(desk.command("why", waits, "-o", "json"))["waiting"]["reason"]
    desk.command("workers", "undrain", node)
    _expect(why == "drained", f"an event waits for {why}")
    desk.wait(lambda: desk.state(waits) == "processed", what="the event is processed once the node is undrained")
    return "drained and idle; an event waited for it, and ran when it was undrained"


def drain_node_in_console(desk: Desk) -> str:
    node = _processor(desk)
    desk.console.send(f"/workers/{node}/drain", {}, form="/workers")
    # The word of the badge: what the page asks before a drain has "undrained" in it.
    desk.wait(lambda: re.search(r"\bDrained\b", desk.console.text("/workers")), what="the page says drained")
    desk.console.send(f"/workers/{node}/undrain", {}, form="/workers")
    return "drained, said so, and undrained"


def one_request(desk: Desk) -> str:
    request_id, event_id = _by_curl(desk)
    [event] = desk.listed("events", "ls", "--request-id", request_id)
    watched = desk.command("watch", "--event", event_id, "--until-settled", "1", "-o", "json")
    logged = [service for service in ("ingest", "processor") if _has_logged(desk, service, request_id, event_id)]
    _expect(event["event_id"] == event_id and event_id in watched, str(event))
    _expect(logged == ["ingest", "processor"], f"only {logged} logged the request with its event")
    return "found by its request id, in the lines of ingest and processor, and in what a watcher gets"


def one_request_in_console(desk: Desk) -> str:
    request_id, event_id = _by_curl(desk)
    page = desk.console.get(f"/events?request_id={request_id}").text
    _expect(set(re.findall(r'href="/console/events/([0-9a-f-]{36})"', page)) == {event_id}, "the list has other events")
    _expect("Processed" in desk.console.text(f"/events/{event_id}"), "its page does not say processed")
    return "the list has this event alone, and its page has the story"


QUESTIONS = (
    Question("What is the main cause of dead letters?", main_cause, main_cause_in_console),
    Question("Replay one group and watch it drain", replay_group, replay_group_in_console),
    Question("Discard another group", discard_group, discard_group_in_console),
    Question("Why is this event late?", why_late, why_late_in_console),
    Question("Which handler is slow?", slow_handler, slow_handler_in_console),
    Question("What happened in the last hour?", last_hour, last_hour_in_console),
    Question("Who replayed what?", who_replayed, who_replayed_in_console),
    Question("Rotate a key", rotate_key, rotate_key_in_console),
    Question("Drain a node", drain_node, drain_node_in_console),
    Question("One request from curl to browser by one id", one_request, one_request_in_console),
)


def _expect(is_so: bool, found: str) -> None:
    if not is_so:
        raise LookupError(found)


def _started(desk: Desk, path: str, form: str, values: dict[str, str]) -> str:
    """Send the form, and look at the page that it leads to until that says done; its text."""
    answer = desk.console.send(path, values, form=form)
    _expect(answer.status_code == 303, f"{path} was answered with {answer.status_code}")
    progress = answer.headers["location"].removeprefix("/console").partition("?")[0]
    desk.wait(lambda: ", 0 to go" in desk.console.text(progress), what="the page says that none is left")
    return desk.console.text(progress)


def _has_logged(desk: Desk, service: str, request_id: str, event_id: str) -> bool:
    lines = [line for line in desk.log_lines(service) if line.get("request_id") == request_id]
    return any(event_id in json.dumps(line) for line in lines)


def _dead(desk: Desk, cause: str) -> int:
    return sum(each["count"] for each in desk.listed("dead", "groups") if each["error_type"] == cause)


def _processor(desk: Desk) -> str:
    nodes = [node for node in desk.listed("workers", "ls") if node["service"] == "processor"]
    return next(str(node["node_id"]) for node in nodes if node["state"] == "active")


def _by_curl(desk: Desk) -> tuple[str, str]:
    """Send an event with curl and a request id, and wait for its end; the request id and the event id."""
    request_id = f"tour-{uuid4().hex}"
    event = {"specversion": "1.0", "id": request_id, "source": "/tour", "type": "com.example.ordered", "data": {"n": 1}}
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", f"{desk.stack.ingest_url}/v1/events", "--data", json.dumps(event),
         "--header", "content-type: application/cloudevents+json", "--header", f"x-request-id: {request_id}",
         "--header", f"authorization: Bearer {desk.key}"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    event_id = str(json.loads(done.stdout)["event_id"])
    desk.wait(lambda: desk.state(event_id) == "processed", what="the event is processed")
    return request_id, event_id
