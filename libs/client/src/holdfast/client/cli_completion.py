"""``holdfast completion``: a completion script for a shell."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from holdfast.client.completion import commands_of, script

__all__ = ["Shell", "completion"]


class Shell(StrEnum):
    """Shells that scripts are made for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(context: typer.Context, shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print a script that completes commands, options and their values. It starts no Python at each Tab.

    [bold]Examples[/]

    echo 'eval "$(holdfast completion bash)"' >> ~/.bashrc

    echo 'eval "$(holdfast completion zsh)"' >> ~/.zshrc

    holdfast completion fish > ~/.config/fish/completions/holdfast.fish
    """
    sys.stdout.write(script(shell, list(commands_of(context.find_root().command))))
