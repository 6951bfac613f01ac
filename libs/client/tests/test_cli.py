"""The ``holdfast`` command against real servers that speak from a script. Against a stack: ``tests/e2e``."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

Cli = Callable[..., Any]
EventBody = Callable[..., dict[str, Any]]

EVENT_ID = "01a20ce1-a999-7253-85bb-3c3e269307a2"
TOPIC = f"event:{EVENT_ID}"
REJECTED = {
    "code": "missing", "detail": "the attribute type is required and not empty", "request_id": "red",
    "errors": [{"pointer": "/type", "code": "missing", "detail": "name it"}],
}  # fmt: skip


def accepted(**changes: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    body = {"event_id": EVENT_ID, "state": "queued", "version": 1, "duplicate": False, "enqueued": True}
    return 202, body | changes, {}


def moment(state: str, version: int, **detail: Any) -> dict[str, Any]:
    """An entry of a timeline, and the part of an update that is the same."""
    return {"state": state, "version": version, "attempt": 1, "at": "2026-11-24T09:30:00.1Z", "detail": detail}


def update(state: str, version: int, topic: str = TOPIC, event_id: str = EVENT_ID) -> dict[str, Any]:
    event = {"id": event_id, "type": "t", "step": 0, **moment(state, version)}
    return {"type": "update", "topic": topic, "pos": f"a:{version}", "event": event}


def subscribed(topic: str = TOPIC) -> dict[str, Any]:
    return {"type": "subscribed", "topic": topic, "pos": "a:0", "recovered": None}


class Gateway:
    """Sends these frames to every client that says hello, then waits."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.hellos: list[dict[str, Any]] = []
        self.close_with: tuple[int, str] | None = None
        self.server = serve(self._play, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self.server.socket.getsockname()[1]}/v1/live"

    def _play(self, connection: ServerConnection) -> None:
        self.hellos.append(json.loads(connection.recv()))
        for frame in self.frames:
            connection.send(json.dumps(frame))
        if self.close_with:
            connection.close(*self.close_with)
        with suppress(ConnectionClosed):  # with the code of close_with, too
            for _ in connection:
                pass


@pytest.fixture
def gateway(script: Any) -> Iterator[Gateway]:
    made = Gateway()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    script.answers = [(201, {"token": "jwt", "expires_at": 7, "live_url": made.url}, {})]
    yield made
    made.server.shutdown()
    thread.join()


def test_an_event_is_sent_as_the_options_say(cli: Cli, script: Any) -> None:
    script.answers = [accepted()]

    done = cli(
        "send", "--type", "t", "--source", "/shop", "--subject", "s", "--audience", "user-42", "--id", "1",
        "--data", '{"n": [1, "ü"]}',
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{EVENT_ID}  queued\n", "")
    sent = script.requests[0][2]
    del sent["time"]
    assert sent == {
        "specversion": "1.0", "type": "t", "source": "/shop", "subject": "s", "audience": "user-42", "id": "1",
        "data": {"n": [1, "ü"]},
    }  # fmt: skip


def test_a_window_is_sent_as_the_options_say(cli: Cli, script: Any) -> None:
    script.answers = [accepted()]
    cli("send", "--type", "t", "--debounce", "30", "--debounce-key", "k", "--debounce-max", "60")
    cli("send", "--type", "t", "--unique", "60", "--unique-key", "k")

    windows = [{name: value for name, value in body.items() if name.endswith(("seconds", "key"))}
               for _, _, body, *_ in script.requests]  # fmt: skip
    assert windows == [
        {"debounceseconds": 30, "debouncekey": "k", "debouncemaxseconds": 60},
        {"uniqueseconds": 60, "uniquekey": "k"},
    ]


def test_a_duplicate_by_its_key_is_told_as_one(cli: Cli, script: Any) -> None:
    script.answers = [accepted(duplicate=True, unique_until="2026-11-29T18:00:00Z")]

    done = cli("send", "--type", "t", "--unique", "60")

    assert done.stdout == (
        f"{EVENT_ID}  queued  (a duplicate of this event by its key until 2026-11-29T18:00:00Z: nothing was recorded)\n"
    )


def test_data_comes_from_a_file_or_from_standard_input(cli: Cli, script: Any, tmp_path: Path) -> None:
    script.answers = [accepted()]
    (tmp_path / "data.json").write_text('"from the file"')

    cli("send", "--type", "t", "--data", "@data.json")
    cli("send", "--type", "t", "--data", "-", stdin='"from stdin"')

    assert [event["data"] for _, _, event in script.requests] == ["from the file", "from stdin"]


def test_an_answer_for_programs_is_one_json_line(cli: Cli, script: Any) -> None:
    script.answers = [accepted(duplicate=True, state="processed", version=3)]

    done = cli("send", "--type", "t", "-o", "json")

    assert json.loads(done.stdout) == {
        "event_id": EVENT_ID, "state": "processed", "version": 3, "is_duplicate": True, "is_enqueued": True,
        "unique_until": None,
    }  # fmt: skip


def test_a_rejection_is_told_word_for_word_with_its_remedy(cli: Cli, script: Any) -> None:
    script.answers = [(400, REJECTED, {})]

    done = cli("send", "--type", "t")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "400 missing: the attribute type is required and not empty [red]",
        "  /type: name it",
    ]


def test_a_file_is_sent_line_by_line_and_each_rejection_explained(cli: Cli, script: Any, tmp_path: Path) -> None:
    script.answers = [accepted(), (400, REJECTED, {}), accepted(duplicate=True)]
    lines = ['{"type": "a"}', "", '{"type": ""}', "{", "[]", '{"type": "b", "data": NaN}', '{"type": "c"}']
    (tmp_path / "events.jsonl").write_text("\n".join(lines))

    done = cli("send", "--file", "events.jsonl", "-o", "json")

    assert done.returncode == 1
    assert [event["type"] for _, _, event in script.requests] == ["a", "", "c"]
    assert [json.loads(line)["is_duplicate"] for line in done.stdout.splitlines()] == [False, True]
    assert "line 3: 400 missing: the attribute type is required and not empty [red]\n  /type: name it\n" in done.stderr
    assert all(f"line {number} is not an event" in done.stderr for number in (4, 5, 6))
    assert done.stderr.endswith("accepted 2 (of which 1 duplicates), rejected 4\n")


def test_events_come_from_standard_input_too(cli: Cli, script: Any) -> None:
    script.answers = [accepted()]

    done = cli("send", "--file", "-", stdin='{"type": "a"}\n{"type": "b"}\n')

    assert (done.returncode, done.stderr) == (0, "accepted 2 (of which 0 duplicates), rejected 0\n")


def test_a_wrong_key_ends_a_file_at_once(cli: Cli, script: Any) -> None:
    script.answers = [accepted(), (401, {"code": "unauthorized", "detail": "no such key"}, {})]

    done = cli("send", "--file", "-", stdin='{"type": "a"}\n' * 5)

    assert done.returncode == 1
    assert len(script.requests) == 2
    assert done.stderr == "accepted 1 (of which 0 duplicates), rejected 0\n401 unauthorized: no such key\n"


def test_a_server_that_goes_away_within_a_file_says_how_to_go_on(cli: Cli, script: Any) -> None:
    script.answers = [accepted(), (503, {"code": "database_unavailable", "detail": "later"}, {"Retry-After": "60"})]

    done = cli("send", "--file", "-", stdin='{"type": "a"}\n' * 5)

    assert done.returncode == 1
    assert "stopped at line 2 of -; send the file again later" in done.stderr


def test_data_is_written_byte_by_byte(cli: Cli, script: Any) -> None:
    script.answers = [(200, b'{"price": 1.10}', {"Content-Type": "application/json"})]

    written = cli("events", "data", EVENT_ID)

    assert (written.returncode, written.stdout) == (0, '{"price": 1.10}')


def test_an_event_is_shown_with_its_timeline_and_data(cli: Cli, script: Any, event_body: EventBody) -> None:
    event = {"id": "1", "source": "/shop", "type": "com.[red]acme", "data": {"n": 1}}
    timeline = [moment("queued", 1), moment("dead", 2, error={"type": "KeyError", "message": "'n'"})]
    view = event_body(event=event, state="dead", version=2, attempt=1, timeline=timeline, of_a_newer_server=[1])
    script.answers = [(200, view, {})]

    shown, for_programs = cli("events", "show", EVENT_ID), cli("events", "show", EVENT_ID, "-o", "json")

    assert script.requests[0][0] == f"/v1/events/{EVENT_ID}?include=data%2Ctimeline"
    assert "com.[red]acme" in shown.stdout
    assert "KeyError: 'n'" in shown.stdout
    assert '"n": 1' in shown.stdout
    assert for_programs.stdout == json.dumps(view, ensure_ascii=False) + "\n"


def test_an_event_is_shown_with_its_steps_and_groups(cli: Cli, script: Any, event_body: EventBody) -> None:
    at = "2026-11-24T09:30:00Z"
    step = {"name": "charge", "handler": "fulfil", "attempt": 1, "stored_at": at, "duration_ms": 12, "wake_at": None}
    sleep = step | {"name": "cool [red]off", "wake_at": "2026-11-25T09:30:00Z"}
    group = {
        "group_id": EVENT_ID, "type": "all.done", "size": 3, "open": 0, "processed": 2, "dead": 1, "discarded": 0,
        "created_at": at, "completed_at": at,
    }  # fmt: skip
    steps = [step | {"result": {"id": "\x1b[2J7"}}, sleep]
    groups = [group, group | {"open": 1, "processed": 1, "completed_at": None}]
    view = event_body(event={"id": "1", "source": "/shop", "type": "t"}, state="processed", version=2, timeline=[])
    script.answers = [(200, view, {}), (200, {"items": steps}, {}), (200, {"items": groups}, {})] * 2

    shown = cli("events", "show", EVENT_ID, "--steps", "--groups")
    for_programs = cli("events", "show", EVENT_ID, "--steps", "--groups", "-o", "json")

    asked = [path for path, _, _ in script.requests][1:3]
    assert asked == [f"/v1/events/{EVENT_ID}/steps", f"/v1/events/{EVENT_ID}/groups"]
    assert 'step      charge in 12 ms, attempt 1 of fulfil: {"id": "' in shown.stdout
    assert "sleep     cool [red]off until 2026-11-25T09:30:00, attempt 1 of fulfil" in shown.stdout
    assert "group     0 open, 2 processed, 1 dead, 0 discarded of 3; followed at 2026-11-24T09:30:00 by" in shown.stdout
    assert "group     1 open, 1 processed, 1 dead, 0 discarded of 3; then comes all.done" in shown.stdout
    assert "\x1b[2J" not in shown.stdout
    assert json.loads(for_programs.stdout) == view | {"steps": steps, "groups": groups}


def test_updates_are_told_as_json_lines_until_enough_are_settled(cli: Cli, gateway: Gateway) -> None:
    topic = "audience:user-42"
    gateway.frames = [
        subscribed(topic),
        *(update(*each, topic=topic, event_id=id_) for id_ in ("a", "b") for each in (("queued", 1), ("processed", 2))),
        update("queued", 1, topic=topic, event_id="c"),
    ]

    done = cli("watch", topic, "--until-settled", "2", "-o", "json")

    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["event"]["id"], each["event"]["state"]) for each in told] == [
        ("a", "queued"), ("a", "processed"), ("b", "queued"), ("b", "processed"),
    ]  # fmt: skip
    assert (told[0]["topic"], told[0]["pos"]) == (topic, "a:1")


def test_an_event_that_is_settled_already_is_not_waited_for(
    cli: Cli, script: Any, gateway: Gateway, event_body: EventBody
) -> None:
    timeline = [moment("queued", 1), moment("processing", 2), moment("processed", 3)]
    script.answers += [(200, event_body(state="processed", timeline=timeline), {})]
    script.answers.insert(1, script.answers[0])  # a token for the address, and one for the connection
    gateway.frames = [subscribed()]

    done = cli("watch", "--event", EVENT_ID.upper(), "--until-settled", "1")

    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["queued", "processing", "processed"]
    assert gateway.hellos[0]["topics"] == [TOPIC]


def test_what_the_timeline_has_told_is_not_told_again_live(
    cli: Cli, script: Any, gateway: Gateway, event_body: EventBody
) -> None:
    timeline = [moment("queued", 1), moment("processing", 2)]
    view = event_body(state="processing", timeline=timeline)
    script.answers = [script.answers[0], script.answers[0], (200, view, {})]
    gateway.frames = [subscribed(), update("processing", 2), update("processed", 3)]

    done = cli("watch", "--event", EVENT_ID, "--until-settled", "1")

    assert [line.split()[1] for line in done.stdout.splitlines()] == ["queued", "processing", "processed"]


def test_a_token_for_many_events_asks_for_all_of_them(cli: Cli, script: Any, gateway: Gateway) -> None:
    gateway.close_with = (4501, "enough")
    ids = [f"01a20ce1-a999-7253-85bb-3c3e2693{number:04}" for number in range(30)]

    cli("watch", "audience:a", *(option for id_ in ids for option in ("--event", id_)))

    assert script.requests[0][2] == {"topics": ["audience:a", "event:*"]}
    assert gateway.hellos[0]["topics"] == ["audience:a", *(f"event:{id_}" for id_ in ids)]


def test_a_gap_is_told_to_people_and_not_to_programs(cli: Cli, gateway: Gateway) -> None:
    topic = "tenant:acme"
    gap = {"type": "gap", "topic": topic, "pos": "b:4", "reason": "epoch", "refetch": True, "jitter_ms": 0}
    gateway.frames = [gap, update("processed", 2, topic=topic)]

    done = cli("watch", topic, "--until-settled", "1", "-o", "json")

    assert "updates of tenant:acme were missed (epoch)" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_final_close_is_told_and_ends_the_watch(cli: Cli, gateway: Gateway) -> None:
    gateway.close_with = (4501, "the token's signature is wrong")

    done = cli("watch", "tenant:acme")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "live updates closed (4501): the token's signature is wrong\n"


def test_ctrl_c_ends_a_watch_quietly(
    command: list[str], environment: dict[str, str], gateway: Gateway, tmp_path: Path
) -> None:
    gateway.frames = [update("queued", 1)]
    process = subprocess.Popen(
        [*command, "watch", TOPIC],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background has it ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert "queued" in process.stdout.readline()

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)

    assert (process.returncode, output, errors) == (130, "", "")


def test_a_reader_that_has_seen_enough_ends_a_watch_quietly(
    command: list[str], environment: dict[str, str], gateway: Gateway, tmp_path: Path
) -> None:
    gateway.frames = [update("queued", number, event_id=str(number)) for number in range(1, 500)]
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as reader:
        process = subprocess.Popen(
            [*command, "watch", TOPIC, "-o", "json"], env=environment, cwd=tmp_path, stdout=write_end, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        os.close(write_end)
        reader.readline()
    _, errors = process.communicate(timeout=30)

    assert (process.returncode, errors) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["send"], {}, "give either --type"),
        (["send", "--type", "t", "--file", "-"], {}, "give either --type"),
        (["send", "--file", "-", "--data", "1"], {}, "their own attributes and data"),
        (["send", "--file", "nothing.jsonl"], {}, "No such file"),
        (["send", "--type", "t", "--data", "{"], {}, "not JSON"),
        (["send", "--type", "t", "--data", "NaN"], {}, "not JSON"),
        (["send", "--type", "t", "--data", "[" * 100_000], {}, "nested too deep"),
        (["send", "--type", "t", "--data", "@nothing.json"], {}, "No such file"),
        (["watch"], {}, "name at least one topic"),
        (["watch", "tenant:acme", "--until-settled", "0"], {}, "greater than or equal to 1"),
        (["events", "show", "x"], {"HOLDFAST_API_KEY": ""}, "give --api-key (HOLDFAST_API_KEY), or start"),
        (["events", "show", "x"], {"HOLDFAST_API_KEY": "hf_…"}, "copy all of it again"),
        (["events", "show", "x"], {"HOLDFAST_URL": "localhost"}, "not an address"),
        (["events", "show", "x"], {"HOLDFAST_URL": "http://127.0.0.1:1"}, "start a local stack with 'make up'"),
    ],
)
def test_mistakes_are_answered_in_a_line_that_says_what_to_do(
    cli: Cli, arguments: list[str], settings: dict[str, str], said: str
) -> None:
    done = cli(*arguments, **settings)

    assert done.returncode in (1, 2)
    assert (said in done.stderr, "Traceback" in done.stderr, done.stdout) == (True, False, ""), done.stderr


@pytest.mark.parametrize(
    "arguments", [["migrate"], ["keys", "revoke", "x", "--database"], ["keys", "ls", "--tenant", "t"]]
)
def test_without_the_extra_the_commands_that_need_it_say_so(
    environment: dict[str, str], tmp_path: Path, arguments: list[str]
) -> None:
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    program = "import sys; sys.modules['holdfast.storage'] = None; from holdfast.client.cli import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "pip install 'holdfast-client[admin]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_and_the_examples_are_printed(cli: Cli) -> None:
    assert cli("--version").stdout.startswith("holdfast 0.")
    assert '--data \'{"order_id": "1"}\'' in cli("send", "--help").stdout
    assert "--until-settled 1" in cli("watch", "--help").stdout
