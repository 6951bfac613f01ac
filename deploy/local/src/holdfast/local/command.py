"""``python -m holdfast.local run|up|down|status|dev|kill``: the stack in this folder's ``.holdfast/``."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from github_activity.webhooks import cloudevents
from holdfast.local.demo import run_show
from holdfast.local.owner import only_one, owner_of, stopping_on_signals
from holdfast.local.process import StartFailed
from holdfast.local.samples import samples
from holdfast.local.stack import Ports, Stack

FOLDER = Path(".holdfast")
PORTS = Ports(postgres=54320, redis=63790, ingest=8080, gateway=8090)
NOT_OURS = frozenset({
    *(f"HOLDFAST_{name}" for name in ("DATABASE_URL", "BROKER_URL", "REDIS_URL", "LIVE_TOKEN_SECRET", "METRICS_PORT")),
    *(f"HOLDFAST_{name}" for name in ("INGEST_HOST", "INGEST_PORT", "GATEWAY_HOST", "GATEWAY_PORT", "PUBLIC_LIVE_URL")),
    *(f"HOLDFAST_{name}" for name in ("GATEWAY_DEMO_INGEST_URL", "GATEWAY_DEMO_KEY_FILE")),
    *(f"HOLDFAST_{name}" for name in ("URL", "API_KEY", "LIVE_URL")),
})  # fmt: skip
"""What the stack decides itself, and what is for the ``holdfast`` command."""

TRYING_OUT = {"HOLDFAST_LEASE_SECONDS": "10"}
"""Settings of a stack that people look at, unless theirs are others: who kills a processor should not wait long to see its
events recovered."""

UP_SECONDS = 120
DOWN_SECONDS = 60

console = Console(highlight=False, soft_wrap=True, markup=False)  # logs and errors are full of brackets


def main() -> int:
    """Run one command; 0 on success."""
    options = _parser().parse_args()
    FOLDER.mkdir(exist_ok=True)
    commands: dict[str, Callable[[], int]] = {
        "up": _up,
        "down": _down,
        "status": _status,
        "serve": _serve,
        "run": lambda: _run(options.events),
        "dev": lambda: _dev(options),
        "kill": lambda: _kill(options.process),
    }
    try:
        return commands[options.command]()
    except StartFailed as exc:
        console.print(f"could not start: {exc}", style="red")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m holdfast.local", description="Holdfast on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="start, send events, show their updates, stay until Ctrl-C")
    run.add_argument("--events", type=Path, help="GitHub webhook deliveries, one JSON object a line; default: samples")
    commands.add_parser("up", help="start in the background")
    commands.add_parser("down", help="stop what 'up' or 'run' started")
    commands.add_parser("status", help="say what runs and where")
    dev = commands.add_parser("dev", help="run handlers, and start them anew at every change of the code")
    dev.add_argument("handlers", help="package.module:attribute")
    dev.add_argument("--stack", action="store_true", help="start the stack of this folder with it")
    dev.add_argument("--watch", action="append", type=Path, help="folder to watch; repeatable; default: this one")
    kill = commands.add_parser("kill", help="kill a service or server as a crash would; the stack starts it again")
    kill.add_argument("process", help="a name in stack.json's pids, such as processor")
    commands.add_parser("serve", help="start and stay until SIGTERM (what 'up' runs)")
    return parser


def _run(file: Path | None) -> int:
    events = _read(file) if file else list(samples())
    with only_one(FOLDER), stopping_on_signals() as stop, _stack() as stack:
        console.print(
            f"\nready after {time.monotonic() - STARTED_AT:.1f} s; sending {len(events)} events\n", style="bold"
        )
        try:
            summary = run_show(stack, events, console.print)
        except KeyboardInterrupt:
            return 0
        console.print(f"\n{summary}", style="bold")
        _say_where(stack.describe())
        stop.wait()
    return 0


def _serve() -> int:
    with only_one(FOLDER), stopping_on_signals() as stop, _stack(), contextlib.suppress(KeyboardInterrupt):
        stop.wait()
    return 0


def _dev(options: argparse.Namespace) -> int:
    from holdfast.local.dev import DEVELOPER_SETTINGS, DevProcessor, run_until  # the other commands watch no files

    folders = options.watch or [Path()]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise StartFailed(f"--watch takes folders, and {', '.join(missing)} is none")
    chosen = {"HOLDFAST_HANDLERS": options.handlers}
    with contextlib.ExitStack() as running:
        stop = running.enter_context(stopping_on_signals())
        if options.stack:
            running.enter_context(only_one(FOLDER))
            stack = running.enter_context(_stack(held=["processor"]))
            _say_where(stack.describe())
            given = stack.environment_of("processor") | DEVELOPER_SETTINGS | _settings()
        elif "HOLDFAST_DATABASE_URL" in os.environ:
            given = DEVELOPER_SETTINGS | dict(os.environ)
        else:
            raise StartFailed("set HOLDFAST_DATABASE_URL, _BROKER_URL and _REDIS_URL, or add --stack")
        processor = DevProcessor(given | chosen, log=FOLDER / "dev.log", output=sys.stdout, say=console.print)
        run_until(stop, processor, folders, console.print)
    return 0


def _up() -> int:
    if owner_of(FOLDER) is not None:
        console.print("it runs already; 'make status' says where, 'make down' stops it")
        return 0
    (FOLDER / "stack.json").unlink(missing_ok=True)
    log = FOLDER / "stack.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.local", "serve"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + UP_SECONDS
    with console.status("starting"):
        while not (FOLDER / "stack.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.terminate()
                raise StartFailed(f"the end of {log}:\n{log.read_text()}")
            time.sleep(0.1)
    return _status()


def _down() -> int:
    owner = owner_of(FOLDER)
    if owner is None:
        console.print("nothing runs")
        return 0
    os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    with console.status("stopping"):
        while owner_of(FOLDER) == owner:
            if time.monotonic() > deadline:
                console.print(f"process {owner} did not stop within {DOWN_SECONDS} s")
                return 1
            time.sleep(0.1)
    console.print("stopped; the data stays in .holdfast")
    return 0


def _kill(name: str) -> int:
    if owner_of(FOLDER) is None:
        return _status()
    running: dict[str, list[int]] = json.loads((FOLDER / "stack.json").read_text())["pids"]
    if name not in running:
        console.print(f"there is no {name!r}; there are {', '.join(running)}")
        return 2
    for pid in running[name]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    console.print(f"killed {name} ({', '.join(map(str, running[name]))}); the stack starts it again")
    return 0


def _status() -> int:
    try:
        described = json.loads((FOLDER / "stack.json").read_text())
    except FileNotFoundError:
        console.print("nothing runs; 'make up' starts it")
        return 1
    _say_where(described)
    return 0


def _say_where(where: dict[str, Any]) -> None:
    key, url = where["api_key"], where["ingest_url"]
    console.print(f"""
  events    {url}/v1/events
  live      {where["live_url"]}
  demo      {where["demo_url"]}
  console   {where["console_url"]}
  database  {where["database_url"]}
  redis     {where["redis_url"]}
  key       {key}
  all of it is in {FOLDER / "stack.json"}, logs are in {FOLDER / "logs"}

Begin with the demo, a shop in which you place orders and watch them. Or watch in another terminal:

  .venv/bin/holdfast watch audience:user-42

and send:

  curl {url}/v1/events -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/cloudevents+json' \\
    -d '{{"specversion":"1.0","id":"1","source":"/me","type":"com.github.push","audience":"user-42",
         "data":{{"ref":"refs/heads/main","repository":{{"full_name":"me/mine"}}}}}}'
""")


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        return list(cloudevents(file.read_text().splitlines()))
    except (OSError, ValueError) as exc:
        raise StartFailed(f"{file}: {exc}") from exc


def _settings() -> dict[str, str]:
    """What the environment says about the services, so that ``HOLDFAST_LEASE_SECONDS=5 make up`` does it."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("HOLDFAST_") and name not in NOT_OURS
    }


@contextlib.contextmanager
def _stack(held: Collection[str] = ()) -> Iterator[Stack]:
    settings = _settings()
    if settings:
        console.print(f"from the environment: {', '.join(settings)}")
    stack = Stack(FOLDER, settings=TRYING_OUT | settings, ports=PORTS, held=held, say=console.print)
    try:
        stack.start()
        yield stack
    finally:
        console.print("\nstopping", style="dim")
        stack.stop()


STARTED_AT = time.monotonic()
