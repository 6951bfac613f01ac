"""``holdfast send``: one event, or a file of them."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import typer
from rich.progress import track

from holdfast.client.cli_output import Output, err, explain, print_json, say
from holdfast.client.errors import ApiProblem, ClientError, Unreachable
from holdfast.client.http import Client, Sent
from holdfast.client.render import one_line

__all__ = ["Tally", "parse_json", "print_sent", "read_data", "send_file"]

UNAUTHORIZED = 401


def read_data(argument: str) -> Any:
    """The value of ``--data``: JSON, ``@file`` with JSON, or ``-`` for JSON on standard input.

    Raises:
        typer.BadParameter: the file cannot be read, or it is not JSON.
    """
    try:
        if argument == "-":
            return parse_json(sys.stdin.buffer.read())
        return parse_json(Path(argument[1:]).read_bytes() if argument.startswith("@") else argument)
    except OSError as exc:
        raise typer.BadParameter(f"--data: {exc.strerror}: {argument[1:]}") from exc
    except ValueError as exc:
        raise typer.BadParameter(f"--data is not JSON: {exc}") from exc


def print_sent(sent: Sent, output: Output) -> None:
    """Print the answer for one event on stdout."""
    if output is Output.json:
        print_json({name: getattr(sent, name) for name in Sent.__slots__})
        return
    notes = ["  (a duplicate: nothing changed)"] if sent.is_duplicate else []
    if sent.unique_until is not None:
        notes = [f"  (a duplicate of this event by its key until {one_line(sent.unique_until)}: nothing was recorded)"]
    print(f"{sent.event_id}  {sent.state}", *notes, sep="")


@dataclass(slots=True)
class Tally:
    """Counts of a file's events by outcome."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0

    def __str__(self) -> str:
        return f"accepted {self.accepted} (of which {self.duplicates} duplicates), rejected {self.rejected}"


def send_file(client: Client, file: Path, output: Output) -> Tally:
    """Send a file of CloudEvents, one per line (``-`` for standard input). A rejected line is explained on stderr, and the
    others are still sent. The tally is printed at the end, also after an error.

    Raises:
        typer.BadParameter: there is no such file.
        ApiProblem, Unreachable: every further line would fail too: the key is wrong, or there is no answer.
    """
    tally = Tally()
    number = 0
    try:
        with _lines(file) as lines:
            for number, line in lines:
                _send_line(client, number, line, tally, output)
    except ClientError as exc:
        _stopped(file, number, tally, exc)
    say(str(tally))
    return tally


def _send_line(client: Client, number: int, line: bytes, tally: Tally, output: Output) -> None:
    try:
        sent = client.send(_event(line))
    except ValueError as exc:
        tally.rejected += 1
        say(f"line {number} is not an event: {exc}")
    except ApiProblem as exc:
        if exc.is_temporary or exc.status == UNAUTHORIZED:
            raise
        tally.rejected += 1
        say(f"line {number}: {explain(exc)}")
    else:
        tally.accepted += 1
        tally.duplicates += sent.is_duplicate
        if output is Output.json:
            print_sent(sent, output)


def _event(line: bytes) -> dict[str, Any]:
    event = parse_json(line)
    if not isinstance(event, dict):
        raise ValueError("a CloudEvent is a JSON object")  # noqa: TRY004 (the text is wrong, not a type)
    return event


def _stopped(file: Path, number: int, tally: Tally, exc: ClientError) -> NoReturn:
    say(str(tally))
    remedy = "send the file again later: events with an id and a source are recorded once"
    if isinstance(exc, Unreachable) or (isinstance(exc, ApiProblem) and exc.is_temporary):
        say(f"stopped at line {number} of {file}; {remedy}")
    raise exc


@contextmanager
def _lines(file: Path) -> Iterator[Iterable[tuple[int, bytes]]]:
    """The lines that are not blank, numbered. Shows a progress bar if stderr is a terminal and ``file`` is a real file."""
    if str(file) == "-":
        yield _numbered(sys.stdin.buffer)
        return
    with _opened(file) as opened:
        total = sum(1 for _ in _numbered(opened))
        opened.seek(0)
        yield track(
            _numbered(opened), "sending", total=total, console=err, disable=not err.is_terminal, transient=True
        )  # fmt: skip


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as exc:
        raise typer.BadParameter(f"--file: {exc.strerror}: {file}") from exc


def _numbered(lines: BinaryIO) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON: no NaN or Infinity.

    Raises:
        ValueError: it is not JSON, or nested too deep.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
