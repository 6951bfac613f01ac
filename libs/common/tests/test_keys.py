"""API keys, from Python and from the command line."""

import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from holdfast.domain.errors import ConfigurationError
from holdfast.storage import Session
from holdfast.storage.database import Database
from holdfast.storage.keys import create_key, find_key, is_secret_of, list_keys, note_use, parse_key, revoke_key

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    database = Database(database_url, application_name="test")
    with database.transaction() as session:
        yield session
    database.close()


def parts(key: str) -> tuple[str, str]:
    parsed = parse_key(key)
    assert parsed is not None
    return parsed


def test_a_key_speaks_for_its_tenant_within_its_scopes(session: Session) -> None:
    key_id, secret = parts(create_key(session, tenant="acme", name="shop", scopes=["events:write", "operate"]))

    holder = find_key(session, key_id)

    assert holder is not None
    assert (holder.tenant, holder.scopes) == ("acme", frozenset({"events:write", "operate"}))
    assert is_secret_of(holder, secret)
    assert not is_secret_of(holder, secret[:-1] + ("A" if secret[-1] != "A" else "B"))


def test_the_secret_is_nowhere_in_the_database(session: Session) -> None:
    _, secret = parts(create_key(session, tenant="acme", name="shop"))

    row = str(session.execute(text("SELECT k::text, encode(secret_hash, 'escape') FROM api_key k")).one())

    assert secret not in row


def test_a_revoked_key_is_not_found(session: Session) -> None:
    key_id, _ = parts(create_key(session, tenant="acme", name="shop"))

    assert revoke_key(session, key_id)

    assert find_key(session, key_id) is None
    assert not revoke_key(session, key_id), "once is enough"
    assert not revoke_key(session, "nosuchkeyid1")


@pytest.mark.parametrize("tenant", ["", "a:b", "-a", "a b", "é", "a" * 64, "a\n"])
def test_an_impossible_tenant_is_refused(session: Session, tenant: str) -> None:
    with pytest.raises(ConfigurationError, match="a tenant is"):
        create_key(session, tenant=tenant, name="shop")


@pytest.mark.parametrize("scopes", [[], ["events:read", "everything"]])
def test_an_unknown_scope_is_refused_with_those_there_are(session: Session, scopes: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="there are events:write, events:read, operate, admin"):
        create_key(session, tenant="acme", name="shop", scopes=scopes)


@pytest.mark.parametrize(
    "text_",
    [
        "", "hf_", "hf_abc_def", "hf_ABCDEFGHIJKL_" + "a" * 43, "hf_abcdefghijkl_" + "a" * 42,
        "xx_abcdefghijkl_" + "a" * 43,
    ],
)  # fmt: skip
def test_another_text_is_no_key(text_: str) -> None:
    assert parse_key(text_) is None


def test_the_command_prints_the_key_alone_and_revokes_it(database_url: str, run_python: RunPython) -> None:
    made = run_python(
        "-m", "holdfast.storage", "keys", "create", "--tenant", "acme", "--name", "n", "--scope", "operate",
        DATABASE_URL=database_url,
    )  # fmt: skip
    key_id, _ = parts(made.stdout.strip())
    first, second = (
        run_python("-m", "holdfast.storage", "keys", "revoke", key_id, DATABASE_URL=database_url) for _ in range(2)
    )

    assert (made.returncode, made.stdout.count("\n")) == (0, 1)
    assert (first.returncode, second.returncode) == (0, 1)
    assert second.stderr == f"there is no active key {key_id}\n"


def test_the_command_says_what_is_wrong_without_a_traceback(
    empty_database_url: str, database_url: str, run_python: RunPython
) -> None:
    create = ("-m", "holdfast.storage", "keys", "create", "--tenant", "a:b", "--name", "n")

    unmigrated = run_python(*create, DATABASE_URL=empty_database_url)
    refused = run_python(*create, DATABASE_URL=database_url)

    assert (unmigrated.returncode, refused.returncode) == (1, 1)
    assert "run 'python -m holdfast.storage migrate'" in unmigrated.stderr
    assert refused.stderr == "a tenant is 1 to 63 letters, digits, dots, dashes and underscores\n"


def audited(session: Session) -> list[tuple[str, str, str]]:
    rows = session.execute(text("SELECT tenant, actor, action FROM audit_log ORDER BY id"))
    return [(row.tenant, row.actor, row.action) for row in rows]


def test_creating_and_revoking_are_audited(session: Session) -> None:
    key_id, secret = parts(create_key(session, tenant="acme", name="shop", actor="command:ann@host"))
    revoke_key(session, key_id, actor="command:bob@host")
    revoke_key(session, key_id, actor="command:bob@host")

    assert audited(session) == [("acme", "command:ann@host", "create_key"), ("acme", "command:bob@host", "revoke_key")]
    detail = session.scalars(text("SELECT detail::text FROM audit_log ORDER BY id")).first()
    assert detail is not None
    assert key_id in detail
    assert secret not in detail


def test_a_key_that_expires_says_how_long_it_lives(session: Session) -> None:
    key_id, _ = parts(create_key(session, tenant="acme", name="shop", life=timedelta(hours=1)))

    holder = find_key(session, key_id)

    assert holder is not None
    assert holder.seconds_left == 3600


@pytest.mark.parametrize("life", [timedelta(0), timedelta(seconds=-1), timedelta(days=3651), timedelta.max])
def test_an_impossible_life_is_refused(session: Session, life: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="at most 3650 days"):
        create_key(session, tenant="acme", name="shop", life=life)


def test_a_use_is_noted_once_a_minute(session: Session) -> None:
    key_id, _ = parts(create_key(session, tenant="acme", name="shop"))

    note_use(session, [key_id, key_id, "nosuchkeyid1"])
    session.execute(text("UPDATE api_key SET last_used_at = last_used_at - interval '59 s'"))
    noted = [entry.last_used_at for entry in list_keys(session)]
    note_use(session, [key_id])
    again = [entry.last_used_at for entry in list_keys(session)]
    session.execute(text("UPDATE api_key SET last_used_at = last_used_at - interval '2 s'"))
    note_use(session, [key_id])
    session.expire_all()

    assert noted == again
    assert list_keys(session)[0].last_used_at != noted[0]


def test_the_command_lists_keys_without_secrets(database_url: str, run_python: RunPython) -> None:
    def keys(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run_python("-m", "holdfast.storage", "keys", *arguments, DATABASE_URL=database_url)

    key_id, secret = parts(keys("create", "--tenant", "acme", "--name", "a\tb", "--expires", "90d").stdout.strip())
    refused = keys("create", "--tenant", "acme", "--name", "n", "--expires", "9999999d")

    [line] = keys("ls", "--tenant", "acme").stdout.splitlines()
    assert line.split("\t")[:4] == [key_id, "acme", "a b", "events:read,events:write"]
    assert "expires 20" in line
    assert "used never" in line
    assert secret not in line
    assert keys("ls", "--tenant", "other").stdout == ""
    assert (refused.returncode, "90d" in refused.stderr) == (2, True)
