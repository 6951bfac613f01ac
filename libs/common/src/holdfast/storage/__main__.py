"""``python -m holdfast.storage``: migrations, API keys, tenants and encryption, where there is no ``holdfast`` command."""

import argparse
import getpass
import re
import socket
import sys
from collections.abc import Callable
from datetime import timedelta

from holdfast.domain.errors import HoldfastError
from holdfast.runtime.settings import StorageSettings, load
from holdfast.storage import Session, encryption_commands, tenant_command
from holdfast.storage.database import Database
from holdfast.storage.keys import LONGEST_LIFE, SCOPES, KeyEntry, create_key, list_keys, revoke_key
from holdfast.storage.migrate import upgrade_when_up
from holdfast.storage.schema import check_revision


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with a message on stderr otherwise."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "encryption":
            lines = encryption_commands.run(options, operator=_operator(), say=_say)
            sys.stdout.writelines(f"{line}\n" for line in lines)
            return 0
        url = load(StorageSettings).database_url.get_secret_value()
        if options.command == "migrate":
            upgrade_when_up(url, within_seconds=options.wait_seconds, report=_say)
            return 0
        return _in_transaction(url, options)
    except HoldfastError as exc:
        _say(str(exc))
        return 1


def _in_transaction(url: str, options: argparse.Namespace) -> int:
    """Run one action on keys or tenants."""
    database = Database(url, application_name="holdfast-keys", pool_size=1)
    try:
        with database.transaction() as session:
            check_revision(session)
            status, lines = _ACTIONS[options.command, options.action](session, options)
    finally:
        database.close()
    # After the commit: a key that is printed exists.
    sys.stdout.writelines(f"{line}\n" for line in lines)
    if options.action == "create":
        _say("keep it: only a hash of it is stored")
    return status


def _create(session: Session, options: argparse.Namespace) -> tuple[int, list[str]]:
    key = create_key(
        session, tenant=options.tenant, name=options.name, scopes=options.scope or SCOPES[:2], life=options.expires,
        actor=_operator(),
    )  # fmt: skip
    return 0, [key]


def _revoke(session: Session, options: argparse.Namespace) -> tuple[int, list[str]]:
    if revoke_key(session, options.key_id, actor=_operator()):
        return 0, []
    _say(f"there is no active key {options.key_id}")
    return 1, []


def _list(session: Session, options: argparse.Namespace) -> tuple[int, list[str]]:
    return 0, [_line(entry) for entry in list_keys(session, tenant=options.tenant)]


def _line(entry: KeyEntry) -> str:
    """Fields with tabs between them. A name is free text, so it loses what would break the line."""
    times = (entry.created_at, entry.expires_at, entry.last_used_at, entry.revoked_at)
    labels = ("created", "expires", "used", "revoked")
    shown = [
        f"{label} {moment:%Y-%m-%dT%H:%M:%SZ}" if moment else f"{label} never"
        for label, moment in zip(labels, times, strict=True)
    ]
    name = "".join(char if char.isprintable() else " " for char in entry.name)
    return "\t".join([entry.key_id, entry.tenant, name, ",".join(entry.scopes), *shown])


def _operator() -> str:
    """Who runs this command, for the audit log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"command:{user}@{socket.gethostname()}"


def _life(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text, re.ASCII)
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    life = timedelta(**{units[match[2]]: int(match[1])}) if match else timedelta(0)
    if not timedelta(0) < life <= LONGEST_LIFE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 12h or 90d, of at most {LONGEST_LIFE.days}d")
    return life


_ACTIONS: dict[tuple[str, str], Callable[[Session, argparse.Namespace], tuple[int, list[str]]]] = {
    ("keys", "create"): _create,
    ("keys", "revoke"): _revoke,
    ("keys", "ls"): _list,
    ("tenants", "ls"): lambda session, _: (0, tenant_command.listing(session)),
    ("tenants", "set"): lambda session, options: (0, tenant_command.change(session, options, user=_operator())),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m holdfast.storage", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    migrate = commands.add_parser(
        "migrate", help="apply missing migrations; safe to run at any time, any number of times"
    )
    migrate.add_argument("--wait-seconds", type=float, default=60.0, help="how long to wait for the database (60)")
    encryption_commands.add_commands(commands.add_parser("encryption", help="keys that seal the data of events"))
    keys = commands.add_parser("keys", help="create, list and revoke API keys").add_subparsers(
        dest="action", required=True
    )
    create = keys.add_parser("create", help="print a new key")
    create.add_argument("--tenant", required=True)
    create.add_argument("--name", required=True, help="whose key it is, for the list of keys")
    create.add_argument(
        "--scope", action="append", choices=SCOPES, help="repeatable; default: events:write events:read"
    )
    create.add_argument("--expires", type=_life, metavar="TIME", help="such as 12h or 90d; default: never")
    listed = keys.add_parser("ls", help="list keys, the newest first")
    listed.add_argument("--tenant", help="only this tenant's")
    revoke = keys.add_parser("revoke", help="revoke a key by its id, the part between 'hf_' and the next '_'")
    revoke.add_argument("key_id")
    tenant_command.add_commands(commands)
    return parser


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
