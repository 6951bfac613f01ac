"""``holdfast handlers check`` and ``holdfast dev``: for those who write handlers. Other packages do the work."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from holdfast.client.cli_options import Format
from holdfast.client.cli_output import Output, say

__all__ = ["check", "dev"]

Handlers = Annotated[str | None, typer.Argument(metavar="MODULE:HANDLERS", help="Such as shop.orders:handlers.")]


def check(path: Handlers = None, output: Format = Output.table) -> None:
    """Import handlers and say what they serve, or what is wrong and where. Needs no database.

    Without MODULE:HANDLERS those of installed packages. Exit status 1: they cannot be imported.

    [bold]Example[/]

    holdfast handlers check shop.orders:handlers
    """
    _run("holdfast.processor", ["check", *([path] if path else []), "-o", output])


def dev(
    path: Annotated[str, typer.Argument(metavar="MODULE:HANDLERS", help="Such as shop.orders:handlers.")],
    stack: Annotated[bool, typer.Option("--stack", help="Start the local stack of this folder with it.")] = False,
    watch: Annotated[
        list[Path] | None, typer.Option("--watch", help="Folder to watch; repeatable; default: this one.")
    ] = None,
) -> None:
    """Run handlers, and start them anew at every change of the code, until Ctrl-C.

    Without --stack it is a processor for the services that HOLDFAST_DATABASE_URL, _BROKER_URL and _REDIS_URL name. Code
    that cannot be imported is explained, and the next change tried. Events in hand are given back at a restart.

    [bold]Examples[/]

    holdfast dev shop.orders:handlers --stack

    HOLDFAST_DATABASE_URL=postgresql://… holdfast dev shop.orders:handlers
    """
    folders = [part for folder in watch or [] for part in ("--watch", str(folder))]
    _run("holdfast.local", ["dev", path, *(["--stack"] if stack else []), *folders])


def _run(package: str, arguments: list[str]) -> None:
    """Run a package that the client does not depend on; ends with its exit status."""
    if not _is_installed(package):
        say(
            f"this command needs {package.replace('.', '-')}: pip install it into the environment of this command",
            "red",
        )
        raise typer.Exit(1)
    # Not exec: this process then has its own Python's handlers of signals, and the terminal gets its prompt back at the end.
    with subprocess.Popen([sys.executable, "-m", package, *arguments]) as process:
        while True:
            try:
                raise typer.Exit(process.wait())
            except KeyboardInterrupt:  # the other one has heard Ctrl-C too, and stops in order
                continue


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
