"""``python -m holdfast.processor check``: what handlers serve, or why they cannot be had. Needs no database."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from holdfast.domain.errors import ConfigurationError
from holdfast.processor.handlers.discovery import discover
from holdfast.processor.handlers.registry import Handler
from holdfast.processor.handlers.schedules import Declared

__all__ = ["check"]

COLUMNS = ("name", "types", "options", "place")

SCHEDULE_COLUMNS = ("name", "tenant", "cron", "timezone", "type", "place")

GAP = "  "


def check(arguments: Sequence[str]) -> int:
    """Run the command; its exit status is 1 if the handlers cannot be had. The reason names file and line."""
    options = _parser().parse_args(arguments)
    try:
        handlers = discover(options.path)
    except ConfigurationError as exc:
        _say(options.output, {"status": "wrong", "error": str(exc)}, [str(exc)], is_fault=True)
        return 1
    described = [_described(handler) for handler in handlers]
    schedules = [_scheduled(declared) for declared in handlers.schedules]
    found = {"status": "ok", "handlers": described, "schedules": schedules}
    _say(options.output, found, [*_handler_lines(described), *_schedule_lines(schedules)], is_fault=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m holdfast.processor check", description="Import handlers and say what they serve."
    )
    parser.add_argument("path", nargs="?", help="package.module:attribute; default: all that are installed")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    return parser


def _described(handler: Handler) -> dict[str, Any]:
    return {
        "name": handler.name,
        "types": list(handler.patterns),
        "place": handler.place,
        "timeout_seconds": handler.timeout_seconds,
        "transactional": handler.is_transactional,
        "ordering": "subject" if handler.is_ordered else None,
        "batch": handler.batch,
        "attempts": handler.retry.attempts,
        "async": handler.is_async,
        "also": handler.is_also,
    }


def _scheduled(declared: Declared) -> dict[str, Any]:
    spec = declared.spec
    return {
        "name": spec.name,
        "tenant": declared.tenant,
        "cron": spec.cron,
        "timezone": spec.timezone,
        "type": spec.type,
        "missed": spec.missed,
        "overlap": spec.overlap,
        **spec.extensions,
        "place": declared.place,
    }


def _handler_lines(described: Sequence[dict[str, Any]]) -> list[str]:
    rows = [(each["name"], ", ".join(each["types"]), _options(each), each["place"]) for each in described]
    return _table(COLUMNS, rows)


def _schedule_lines(described: Sequence[dict[str, Any]]) -> list[str]:
    rows = [tuple(each[column] for column in SCHEDULE_COLUMNS) for each in described]
    return ["", *_table(SCHEDULE_COLUMNS, rows)] if rows else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [columns, *rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    header, *others = [GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return [header.upper(), *others]


def _options(described: dict[str, Any]) -> str:
    told = [f"timeout={described['timeout_seconds']:g}", f"attempts={described['attempts']}"]
    told += ["async"] if described["async"] else [] if described["transactional"] else ["transactional=False"]
    told += ["also"] if described["also"] else []
    told += ["ordering=subject"] if described["ordering"] else []
    return " ".join(told + ([f"batch={described['batch']}"] if described["batch"] > 1 else []))


def _say(output: str, document: dict[str, Any], lines: Sequence[str], *, is_fault: bool) -> None:
    if output == "json":
        sys.stdout.write(json.dumps(document) + "\n")
        return
    stream = sys.stderr if is_fault else sys.stdout
    stream.writelines(f"{line.rstrip()}\n" for line in lines)
