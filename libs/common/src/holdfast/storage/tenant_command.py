"""``python -m holdfast.storage tenants``: the share of the turns and the backlog limit of tenants."""

import argparse
from typing import Any

from holdfast.domain.names import is_tenant
from holdfast.storage import Session
from holdfast.storage.audit import command_actor
from holdfast.storage.tenants import (
    HIGHEST_WEIGHT,
    LONGEST_BACKLOG_SECONDS,
    TenantSettings,
    find_tenant,
    list_tenants,
    set_tenant,
)

__all__ = ["add_commands", "change", "listing"]

AS_INGEST = "default"
"""Instead of seconds: as ingest is set."""


def add_commands(commands: Any) -> None:
    """Add ``tenants`` and what belongs to it; ``commands`` is what ``add_subparsers`` returns."""
    tenants = commands.add_parser("tenants", help="weights and backlog limits of tenants").add_subparsers(
        dest="action", required=True
    )
    tenants.add_parser("ls", help="list tenants for which something was set")
    setting = tenants.add_parser("set", help="set one; what is left out stays")
    setting.add_argument("tenant", type=_tenant)
    setting.add_argument("--weight", type=_weight, help=f"its share of the turns, 1 to {HIGHEST_WEIGHT}; usually 1")
    setting.add_argument(
        "--backlog-seconds", type=_seconds, metavar="SECONDS",
        help=f"how old its oldest due event may be; 0: any age; '{AS_INGEST}': HOLDFAST_BACKLOG_LIMIT_SECONDS of ingest",
    )  # fmt: skip


def listing(session: Session) -> list[str]:
    """A line for each tenant for which something was set."""
    return [_line(each) for each in list_tenants(session)]


def change(session: Session, options: argparse.Namespace, *, user: str) -> list[str]:
    """Set what is given, and show what holds now."""
    known = find_tenant(session, options.tenant)
    weight = known.weight if options.weight is None else options.weight
    backlog = known.backlog_seconds
    if options.backlog_seconds is not None:
        backlog = None if options.backlog_seconds == AS_INGEST else options.backlog_seconds
    if options.weight is None and options.backlog_seconds is None:
        return [_line(known)]
    actor = command_actor(options.tenant, user)
    return [_line(set_tenant(session, actor, weight=weight, backlog_seconds=backlog))]


def _line(each: TenantSettings) -> str:
    backlog = AS_INGEST if each.backlog_seconds is None else f"{each.backlog_seconds:g} s"
    return f"{each.name}\tweight {each.weight}\tbacklog {backlog}"


def _tenant(text: str) -> str:
    if not is_tenant(text):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is no tenant: 1 to 63 ASCII letters, digits, dots, dashes and underscores"
        )
    return text


def _weight(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= HIGHEST_WEIGHT:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no weight: a whole number from 1 to {HIGHEST_WEIGHT}")
    return int(text)


def _seconds(text: str) -> float | str:
    if text == AS_INGEST:
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_BACKLOG_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is no limit: seconds from 0 to {LONGEST_BACKLOG_SECONDS:g}, or '{AS_INGEST}'"
        )
    return seconds
