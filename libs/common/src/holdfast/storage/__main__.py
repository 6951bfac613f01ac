"""``python -m holdfast.storage``: migrations and API keys, for containers that have no ``holdfast`` command."""

import argparse
import sys

from holdfast.domain.errors import HoldfastError
from holdfast.runtime.settings import StorageSettings, load
from holdfast.storage.database import Database
from holdfast.storage.keys import SCOPES, create_key, revoke_key
from holdfast.storage.migrate import upgrade_when_up
from holdfast.storage.schema import check_revision


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with a message on stderr otherwise."""
    options = _parser().parse_args(arguments)
    try:
        url = load(StorageSettings).database_url.get_secret_value()
        if options.command == "migrate":
            upgrade_when_up(url, within_seconds=options.wait_seconds, report=_say)
            return 0
        return _keys(url, options)
    except HoldfastError as exc:
        _say(str(exc))
        return 1


def _keys(url: str, options: argparse.Namespace) -> int:
    database = Database(url, application_name="holdfast-keys", pool_size=1)
    try:
        with database.transaction() as session:
            check_revision(session)
            if options.action == "create":
                scopes = options.scope or SCOPES[:2]
                key = create_key(session, tenant=options.tenant, name=options.name, scopes=scopes)
            elif not revoke_key(session, options.key_id):
                _say(f"there is no active key {options.key_id}")
                return 1
    finally:
        database.close()
    if options.action == "create":
        sys.stdout.write(f"{key}\n")
        _say("keep it: only a hash of it is stored")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m holdfast.storage", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    migrate = commands.add_parser(
        "migrate", help="apply missing migrations; safe to run at any time, any number of times"
    )
    migrate.add_argument("--wait-seconds", type=float, default=60.0, help="how long to wait for the database (60)")
    keys = commands.add_parser("keys", help="create and revoke API keys").add_subparsers(dest="action", required=True)
    create = keys.add_parser("create", help="print a new key")
    create.add_argument("--tenant", required=True)
    create.add_argument("--name", required=True, help="whose key it is, for the list of keys")
    create.add_argument(
        "--scope", action="append", choices=SCOPES, help="repeatable; default: events:write events:read"
    )
    revoke = keys.add_parser("revoke", help="revoke a key by its id, the part between 'hf_' and the next '_'")
    revoke.add_argument("key_id")
    return parser


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
