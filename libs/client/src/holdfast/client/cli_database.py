"""Commands on the database itself, which only the extra ``admin`` installs."""

import typer

from holdfast.client.cli_output import say

__all__ = ["run_on_database"]


def run_on_database(arguments: list[str]) -> None:
    """Run a command of the storage package, and exit with its status."""
    try:
        from holdfast.storage.__main__ import main as storage_main
    except ModuleNotFoundError as exc:
        say(f"this command needs the database packages ({exc}): pip install 'holdfast-client[admin]'", "red")
        raise typer.Exit(1) from exc
    raise typer.Exit(storage_main(arguments))
