"""``holdfast doctor``: find out what is wrong, and say what to do."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from holdfast.client.checkup import Finding, Verdict, is_wrong, report, unchecked, wrong
from holdfast.client.cli_options import Format, Key, LiveUrl, Url
from holdfast.client.cli_output import Output, out, print_json
from holdfast.client.connection import find_address
from holdfast.client.doctor_api import check_api
from holdfast.client.doctor_gateway import check_gateway
from holdfast.client.render import one_line

__all__ = ["Scope", "Service", "doctor"]

STYLES = {Verdict.ok: "green", Verdict.warning: "yellow", Verdict.wrong: "bold red", Verdict.unchecked: "dim"}

WIDTH = 12
"""Of the columns before the summary."""


class Service(StrEnum):
    """Whose settings are read."""

    ingest = "ingest"
    processor = "processor"
    maintenance = "maintenance"
    gateway = "gateway"


class Scope(StrEnum):
    """What a key may do."""

    read = "events:read"
    write = "events:write"
    operate = "operate"


def doctor(
    settings: Annotated[
        Service | None,
        typer.Option(
            "--settings", help="Check this machine's HOLDFAST_* settings, as this service reads them, instead."
        ),
    ] = None,
    scope: Annotated[list[Scope] | None, typer.Option(help="What the key must be allowed to do; repeatable.")] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also revoke a token made for it, to see that the gateway hears of it.")
    ] = False,
    url: Url = None,
    api_key: Key = None,
    live_url: LiveUrl = None,
    output: Format = Output.table,
) -> None:
    """Find out what is wrong and what to do about it. Exit status 1 if something is.

    Without --settings it looks as a client does: the API, the key, and live updates. With --settings it looks from a
    machine that has a service's settings: those, PostgreSQL and Redis, and who works there. What it could not find out it
    calls unchecked. It changes nothing, unless --probe is given.

    [bold]Examples[/]

    holdfast doctor --scope operate --probe

    HOLDFAST_DATABASE_URL=postgresql://… holdfast doctor --settings processor
    """
    if settings is not None:
        findings = list(_from_settings(settings))
    else:
        address = find_address(url, api_key, live_url)
        findings = list(check_api(address, [str(each) for each in scope or []]))
        if any(each.check == "key" and each.verdict is Verdict.ok for each in findings):
            findings += check_gateway(address, is_probing=probe)
        else:
            findings.append(unchecked("gateway", "whether live updates arrive", "mend the findings above first"))
    if output is Output.json:
        print_json(report(findings))
    else:
        _print(findings)
    raise typer.Exit(1 if is_wrong(findings) else 0)


def _from_settings(service: Service) -> Iterable[Finding]:
    try:
        from holdfast.client.doctor_settings import check_settings
    except ModuleNotFoundError as exc:
        remedy = "install them: pip install 'holdfast-client[admin]'"
        return [wrong("settings", f"the packages that speak to PostgreSQL and Redis are missing ({exc.name})", remedy)]
    return check_settings(service)


def _print(findings: list[Finding]) -> None:
    for each in findings:
        line = Text.assemble(
            (f"{each.verdict:<{WIDTH}}", STYLES[each.verdict]),
            (f"{each.check:<{WIDTH}}", "bold"),
            one_line(each.summary),
        )
        out.print(line)
        if each.remedy:
            out.print(Text(f"{'':<{2 * WIDTH}}{one_line(each.remedy)}"))
