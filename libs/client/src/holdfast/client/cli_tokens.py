"""``holdfast token``: live tokens, and their revocation."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from holdfast.client.cli_options import WHERE, Format, Key, Url, connect
from holdfast.client.cli_output import Output, print_json, say
from holdfast.client.connection import find_address
from holdfast.client.http import LiveToken

__all__ = ["tokens"]


class _CreateByDefault(TyperGroup):
    """``holdfast token audience:a`` is ``holdfast token create audience:a``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``create`` where no command is named."""
        if args and args[0] not in {*self.commands, *self.get_help_option_names(ctx)}:
            args = ["create", *args]
        return super().parse_args(ctx, args)


tokens = typer.Typer(cls=_CreateByDefault, no_args_is_help=True, help="Print a live token, or revoke live tokens.")


@tokens.command(epilog=WHERE)
def create(
    topics: Annotated[
        list[str], typer.Argument(metavar="TOPIC", help="Topics that it grants; a final * grants all that start so.")
    ],
    sub: Annotated[str | None, typer.Option(help="Whose token it is; default: the API key's.")] = None,
    ttl_seconds: Annotated[int | None, typer.Option("--ttl", min=1, help="How long it is valid, in seconds.")] = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Print a live token, for a browser or another program. The word create may be left out.

    [bold]Example[/]

    holdfast token audience:user-42 --sub user-42 --ttl 900
    """
    with connect(find_address(url, api_key)) as client:
        token = client.token(topics, sub=sub, ttl_seconds=ttl_seconds)
    if output is Output.json:
        print_json({name: getattr(token, name) for name in LiveToken.__slots__})
    else:
        print(token.token)


@tokens.command(epilog=WHERE)
def revoke(
    sub: Annotated[str | None, typer.Option(help="Subject whose tokens, issued until now, end.")] = None,
    jti: Annotated[str | None, typer.Option(help="Id of one token: its jti claim.")] = None,
    url: Url = None,
    api_key: Key = None,
    output: Format = Output.table,
) -> None:
    """Revoke live tokens; connections that use them end at once. Needs the scope operate.

    [bold]Examples[/]

    holdfast token revoke --sub user-42

    holdfast token revoke --jti 7d1f3c52a90b4e0e8a6f5f1f0a9c2b34
    """
    if bool(sub) == bool(jti):
        # An empty value may be an unset shell variable.
        raise typer.BadParameter("give either --sub or --jti, and not an empty one")
    with connect(find_address(url, api_key)) as client:
        is_immediate = client.revoke_tokens(sub=sub, jti=jti)
    if output is Output.json:
        print_json({"immediate": is_immediate})
    else:
        say("revoked" if is_immediate else "revoked; connections end when Redis is back", "green")
