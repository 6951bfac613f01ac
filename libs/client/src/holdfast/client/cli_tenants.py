"""``holdfast tenants``: how the key's tenant stands; and, on the database, the shares of all tenants."""

from typing import Annotated

import typer

from holdfast.client.cli_database import run_on_database
from holdfast.client.cli_options import WHERE, Format, Key, Url, connect
from holdfast.client.cli_output import Output, print_json
from holdfast.client.connection import find_address
from holdfast.client.render import one_line

__all__ = ["tenants"]

tenants = typer.Typer(
    no_args_is_help=True,
    help="Show how your tenant stands in the turns; set weights and backlog limits, on the database "
    "(HOLDFAST_DATABASE_URL).",
)


@tenants.command(epilog=WHERE)
def show(url: Url = None, api_key: Key = None, output: Format = Output.table) -> None:
    """Show your tenant's weight and backlog limit, and how much of its waits.

    [bold]Example[/]

    holdfast tenants show
    """
    with connect(find_address(url, api_key)) as client:
        found = client.tenant()
    if output is Output.json:
        print_json(found.raw)
        return
    limit = f"{found.backlog_limit_seconds:g} s" if found.backlog_limit_seconds else "none"
    print(
        f"{one_line(found.name)}  weight {found.weight}  backlog limit {limit}  {found.waiting} waiting,"
        f" the oldest due for {found.oldest_due_seconds:g} s"
    )


@tenants.command("ls")
def list_tenants() -> None:
    """List the tenants for which something was set; needs HOLDFAST_DATABASE_URL."""
    run_on_database(["tenants", "ls"])


@tenants.command("set")
def set_tenant(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Whose settings.")],
    weight: Annotated[str | None, typer.Option("--weight", help="Its share of the turns, 1 to 100; usually 1.")] = None,
    backlog_seconds: Annotated[
        str | None,
        typer.Option("--backlog-seconds", help="How old its oldest due event may be; 0: any age; or default."),
    ] = None,
) -> None:
    """Set a tenant's weight and backlog limit; what is left out stays. Needs HOLDFAST_DATABASE_URL.

    [bold]Example[/]

    HOLDFAST_DATABASE_URL=postgresql://… holdfast tenants set acme --weight 3 --backlog-seconds 600
    """
    given = [("--weight", weight), ("--backlog-seconds", backlog_seconds)]
    options = [word for name, value in given if value is not None for word in (name, value)]
    run_on_database(["tenants", "set", tenant, *options])
