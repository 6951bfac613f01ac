"""``python -m holdfast.storage encryption``: making a key-encryption key, and looking after the data keys."""

import argparse
import os
from collections.abc import Callable

from holdfast.domain.encryption_keys import KEY_BYTES, key_id, key_text
from holdfast.domain.errors import ConfigurationError
from holdfast.runtime.settings import SealingSettings, load
from holdfast.storage import data_keys
from holdfast.storage.database import Database
from holdfast.storage.schema import check_revision
from holdfast.storage.sealing import Sealing, open_sealing

__all__ = ["add_commands", "run"]

Say = Callable[[str], None]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """What ``encryption`` takes."""
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("new-key", help="print a new key for HOLDFAST_ENCRYPTION_KEYS, and its id on stderr")
    actions.add_parser("status", help="by which keys the data keys are wrapped, and whether they are at hand")
    actions.add_parser("rewrap", help="wrap all data keys by the first key; safe to end and to repeat at any time")
    rotate = actions.add_parser("rotate", help="give tenants another data key for what is new")
    rotate.add_argument("--tenant", help="only this one; default: every tenant that has one")
    actions.add_parser("prune", help="drop retired data keys that nothing is sealed with; reads every event once")


def run(options: argparse.Namespace, *, operator: str, say: Say) -> list[str]:
    """Run one action; the lines to print.

    Raises:
        HoldfastError: with the remedy.
    """
    if options.action == "new-key":
        key = os.urandom(KEY_BYTES)
        say(f"its id is {key_id(key)}; keep the key: without it what is sealed under it is lost")
        return [key_text(key)]
    settings = load(SealingSettings)
    sealing = open_sealing(settings.read_encryption_keys())
    database = Database(
        settings.database_url.get_secret_value(), application_name="holdfast-encryption", pool_size=1,
        statement_timeout_seconds=0,
    )  # fmt: skip
    try:
        database.call(check_revision)
        return _ACTIONS[options.action](database, sealing, options, operator)
    finally:
        database.close()


def _status(database: Database, sealing: Sealing | None, _: argparse.Namespace, _operator: str) -> list[str]:
    ids = [] if sealing is None else sealing.ring.ids
    current = None if sealing is None else sealing.ring.current_id
    lines = []
    for each in database.call(data_keys.count_keys):
        standing = "current" if each.kek_id == current else "at hand" if each.kek_id in ids else "MISSING"
        lines.append(f"{each.kek_id}\t{standing}\tactive {each.active}\tretired {each.retired}")
    return lines or ["nothing is sealed"]


def _rewrap(database: Database, sealing: Sealing | None, _: argparse.Namespace, operator: str) -> list[str]:
    total, ring = 0, _needed(sealing)
    while done := database.call(data_keys.rewrap, ring, operator=operator):
        total += done
    return [f"{total} data keys are wrapped by {ring.ring.current_id} now"]


def _rotate(database: Database, sealing: Sealing | None, options: argparse.Namespace, operator: str) -> list[str]:
    ring = _needed(sealing)
    tenants = [options.tenant] if options.tenant else database.call(data_keys.active_tenants)
    return [f"{tenant}\t{database.call(data_keys.rotate, ring, tenant, operator=operator)}" for tenant in tenants]


def _prune(database: Database, _: Sealing | None, _options: argparse.Namespace, operator: str) -> list[str]:
    return [f"{database.call(data_keys.drop_unused, operator=operator)} data keys dropped"]


def _needed(sealing: Sealing | None) -> Sealing:
    if sealing is None:
        raise ConfigurationError("set HOLDFAST_ENCRYPTION_KEYS to the keys of the services, the current one first")
    return sealing


_ACTIONS: dict[str, Callable[[Database, Sealing | None, argparse.Namespace, str], list[str]]] = {
    "status": _status, "rewrap": _rewrap, "rotate": _rotate, "prune": _prune,
}  # fmt: skip
