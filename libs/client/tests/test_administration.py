"""Audit and API keys: the client and its commands against a real server that answers from a script."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from holdfast.client import ApiProblem, Client

Cli = Callable[..., Any]

EVENT_ID = "01a20ce1-a999-7253-85bb-3c3e269307a2"


def entry(**changes: Any) -> dict[str, Any]:
    who = {"actor": {"id": "abcdefghijkl", "name": "ann"}, "origin": "203.0.113.9", "request_id": "r-1"}
    what = {"action": "replay", "event_id": EVENT_ID, "replay_id": None, "detail": {"from_state": "dead"}}
    return {"id": "7", "at": "2026-11-24T09:30:00.1Z", **who, **what, **changes}


def api_key(**changes: Any) -> dict[str, Any]:
    times = {"expires_at": None, "last_used_at": None, "revoked_at": None, "replaced_by": None}
    shown = {"key_id": "abcdefghijkl", "prefix": "hf_abcdefghijkl_", "name": "shop", "scopes": ["operate", "admin"]}
    return {**shown, "state": "active", "created_at": "2026-11-24T09:30:00Z", **times, **changes}


@pytest.fixture
def client(script: Any) -> Iterator[Client]:
    with Client(script.url, "hf_key") as client:
        yield client


def test_the_audit_is_read_page_by_page(script: Any, client: Client) -> None:
    script.answers = [
        (200, {"items": [entry(), entry(action="discard")], "next_cursor": "6"}, {}),
        (200, {"items": [entry(actor={"id": "maintenance", "name": None})], "next_cursor": None}, {}),
    ]

    entries = list(client.audit(actor="ann", event_id=None))

    assert [each.action for each in entries] == ["replay", "discard", "replay"]
    assert [each.actor_name for each in entries] == ["ann", "ann", None]
    assert [parse_qs(urlsplit(path).query) for path, _, _ in script.requests] == [
        {"actor": ["ann"], "limit": ["200"]}, {"actor": ["ann"], "limit": ["200"], "cursor": ["6"]},
    ]  # fmt: skip


def test_the_audit_is_a_table_for_people(cli: Cli, script: Any) -> None:
    command = entry(actor={"id": "command:ann@host", "name": None}, origin=None, event_id=None, detail={})
    evil = entry(actor={"id": "abcdefghijkl", "name": "a\x1b[2Jn\n[red]"})
    script.answers = [(200, {"items": [entry(), command, evil], "next_cursor": None}, {})]

    done = cli(
        "audit", "--actor", "ann", "--action", "replay", "--event", EVENT_ID, "--replay", EVENT_ID, "--since", "s",
        "--until", "u", "-n", "3",
    )  # fmt: skip

    lines = done.stdout.splitlines()
    assert lines[0].split() == ["WHEN", "WHO", "FROM", "ACTION", "WHAT"]
    assert lines[1].split()[:5] == ["2026-11-24T09:30:00", "ann", "(abcdefghijkl)", "203.0.113.9", "replay"]
    assert lines[1].endswith(f'{EVENT_ID} {{"from_state": "dead"}}')
    assert lines[2].split() == ["2026-11-24T09:30:00", "command:ann@host", "-", "replay"]
    assert {line.index("replay") for line in lines[1:]} == {lines[0].index("ACTION")}, "the columns are aligned"
    assert "\x1b" not in done.stdout
    assert parse_qs(urlsplit(script.requests[0][0]).query) == {
        "actor": ["ann"], "action": ["replay"], "event_id": [EVENT_ID], "replay_id": [EVENT_ID], "since": ["s"],
        "until": ["u"], "limit": ["3"],
    }  # fmt: skip


def test_the_audit_is_json_lines_for_programs(cli: Cli, script: Any) -> None:
    body = entry(new_field=1)
    script.answers = [(200, {"items": [body, body], "next_cursor": None}, {})]

    assert [json.loads(line) for line in cli("audit", "-o", "json").stdout.splitlines()] == [body, body]


def test_a_key_that_is_made_is_asked_for_once_and_its_secret_is_not_shown(script: Any, client: Client) -> None:
    script.answers = [(503, {"code": "database_unavailable", "detail": "d"}, {}), (201, api_key(key="hf_secret"), {})]

    made = client.create_key("shop", scopes=["operate"], expires_in_seconds=60)

    assert made.key == "hf_secret"
    assert "hf_secret" not in repr(made)
    assert made.entry.raw == api_key()
    [first, second] = [(path, headers["Idempotency-Key"], body) for path, headers, body in script.requests]
    assert first == second
    assert first[::2] == ("/v1/keys", {"name": "shop", "scopes": ["operate"], "expires_in_seconds": 60})


def test_keys_are_rotated_and_revoked(script: Any, client: Client) -> None:
    script.answers = [
        (201, api_key(key="hf_new"), {}), (200, api_key(state="revoked", revoked_at="2026-11-24T09:31:00Z"), {}),
        (409, {"code": "last_admin_key", "detail": "d"}, {}),
    ]  # fmt: skip

    assert client.rotate_key("a/b", overlap_seconds=0).key == "hf_new"
    assert client.revoke_key("abcdefghijkl", force=True).state == "revoked"
    with pytest.raises(ApiProblem, match="last_admin_key"):
        client.revoke_key("abcdefghijkl")
    assert [(path, body) for path, _, body in script.requests] == [
        ("/v1/keys/a%2Fb/rotate", {"overlap_seconds": 0}), ("/v1/keys/abcdefghijkl/revoke", {"force": True}),
        ("/v1/keys/abcdefghijkl/revoke", {"force": False}),
    ]  # fmt: skip


def test_a_new_key_is_printed_alone(cli: Cli, script: Any) -> None:
    script.answers = [(201, api_key(key="hf_secret"), {})]

    made = cli("keys", "create", "--name", "shop", "--scope", "operate", "--scope", "admin", "--expires", "90d")
    rotated = cli("keys", "rotate", "abcdefghijkl", "--overlap", "1h")
    for_programs = cli("keys", "rotate", "abcdefghijkl", "-o", "json")

    assert (made.returncode, made.stdout, made.stderr) == (0, "hf_secret\n", "keep it: only a hash of it is stored\n")
    assert rotated.stdout == "hf_secret\n"
    assert "abcdefghijkl ends in 1h" in rotated.stderr
    assert json.loads(for_programs.stdout) == api_key(key="hf_secret")
    assert [body for _, _, body in script.requests] == [
        {"name": "shop", "scopes": ["operate", "admin"], "expires_in_seconds": 90 * 86_400}, {"overlap_seconds": 3600}, {},
    ]  # fmt: skip


def test_keys_are_a_table_for_people_and_json_lines_for_programs(cli: Cli, script: Any) -> None:
    old = api_key(replaced_by="mnopqrstuvwx", expires_at="2026-11-25T09:30:00Z", last_used_at="2026-11-24T10:00:00Z")
    script.answers = [(200, {"items": [api_key(name="a\x1b[2J"), old], "next_cursor": None}, {})]

    lines = cli("keys", "ls").stdout.splitlines()
    listed = [json.loads(line) for line in cli("keys", "ls", "-o", "json").stdout.splitlines()]

    assert lines[0].split() == ["ID", "STATE", "SCOPES", "CREATED", "EXPIRES", "LAST", "USED", "NAME"]
    assert lines[1].split()[:6] == [
        "abcdefghijkl", "active", "operate,admin", "2026-11-24T09:30:00", "never", "never",
    ]  # fmt: skip
    assert "active, now mnopqrstuvwx" in lines[2]
    assert {line.index("operate,admin") for line in lines[1:]} == {lines[0].index("SCOPES")}
    assert "\x1b" not in "".join(lines)
    assert listed[1] == old


def test_a_revoked_key_is_shown_and_the_last_of_an_administrator_explained(cli: Cli, script: Any) -> None:
    script.answers = [
        (409, {"code": "last_admin_key", "detail": "make one"}, {}), (200, api_key(state="revoked"), {}),
    ]  # fmt: skip

    refused, revoked = cli("keys", "revoke", "abcdefghijkl"), cli("keys", "revoke", "abcdefghijkl", "--force")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "make one" in refused.stderr
    assert "revoked" in revoked.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--name", "n", "--expires", "soon"], "not a time like"),
        (["create", "--name", "n", "--database"], "--tenant"),
        (["rotate", "abcdefghijkl", "--overlap", "1w"], "not a time like"),
    ],
)
def test_what_keys_do_not_take_is_said_before_anything_is_asked(
    cli: Cli, script: Any, arguments: list[str], said: str
) -> None:
    done = cli("keys", *arguments)

    assert (done.returncode, script.requests) == (2, [])
    assert said in done.stderr


def test_the_help_says_which_is_over_the_api_and_which_on_the_database(cli: Cli) -> None:
    said = " ".join(cli("keys", "--help").stdout.split())

    assert "scope admin" in said
    assert "HOLDFAST_DATABASE_URL" in said
