"""Look at the environment that a member was installed into alone: run by tools/alone.sh with that environment's Python.

Lists what is installed, and fails on

- a package that is in neither the member's lock nor in the tree as something that it depends on (another service, say),
- an import, anywhere in its sources, of a package that neither it nor one of our own packages below it declares: with all
  members in one environment it works by accident,
- a module of it that cannot be imported.
"""

import ast
import importlib
import json
import os
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions, packages_distributions
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

OURS = "holdfast-"

SETTINGS = {
    "HOLDFAST_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    "HOLDFAST_LIVE_TOKEN_SECRET": "only-for-importing-modules-that-read-settings",
}
"""Some modules are entry points of servers and read their settings when they are imported. Nothing connects."""


def main(folder: Path) -> int:
    """0 when the member needs nothing that it does not declare; otherwise 1, with the reasons on stderr."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    name = project["project"]["name"]
    ours = own_packages(name)
    problems = [*strangers(folder, ours), *undeclared_imports(folder, ours), *failed_imports(project)]
    print(f"{name}: {', '.join(sorted(f'{d.name} {d.version}' for d in distributions()))}")
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)
    return 1 if problems else 0


def own_packages(name: str) -> dict[str, set[str]]:
    """The member and those of our packages that it depends on, each with what it declares.

    Of the member all extras count, of the others those that are asked for.
    """
    found: dict[str, set[str]] = {}
    waiting = [(name, set(distribution(name).metadata.get_all("Provides-Extra", [])))]
    while waiting:
        current, extras = waiting.pop()
        wanted = found.setdefault(current, set())
        for required, its_extras, extra in requirements(distribution(current)):
            if extra is None or extra in extras:
                wanted.add(required)
                if required.startswith(OURS):
                    waiting.append((required, its_extras))
    return found


def requirements(installed: Distribution) -> Iterator[tuple[str, set[str], str | None]]:
    """Name, extras asked for, and the extra of ``installed`` that it belongs to."""
    for line in installed.requires or []:
        name, asked_for = re.findall(r"^([\w.-]+)(?:\[([^\]]*)\])?", line)[0]
        belongs_to = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        yield normalized(name), set(re.findall(r"[\w-]+", asked_for)), belongs_to and belongs_to[1]


def strangers(folder: Path, ours: dict[str, set[str]]) -> list[str]:
    """Installed packages that have no business here."""
    installed = {normalized(one.name) for one in distributions()}
    lock = folder / "requirements.lock"
    if lock.exists():
        expected = set(ours) | {normalized(pin) for pin in re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)}
    else:
        expected = {one for one in installed if not one.startswith(OURS)} | set(ours)
    return [f"{one} is installed and not one of its packages" for one in sorted(installed - expected)]


def undeclared_imports(folder: Path, ours: dict[str, set[str]]) -> list[str]:
    """Imports of the member's sources that work, if they do, thanks to somebody else's dependencies."""
    declared = set(ours).union(*ours.values())
    providers = {module: {normalized(one) for one in names} for module, names in packages_distributions().items()}
    rooms = our_rooms(ours)
    problems = set()
    for path, module in imports(folder / "src"):
        top, _, rest = module.partition(".")
        if top in sys.stdlib_module_names:
            continue
        found = (
            rooms.get(rest.partition(".")[0], set()) if top == "holdfast" else providers.get(top, rooms.get(top, set()))
        )
        if not found & declared:
            problems.add(f"{path} imports {module}, and no dependency that pyproject.toml declares provides it")
    return sorted(problems)


def our_rooms(ours: dict[str, set[str]]) -> dict[str, set[str]]:
    """``ingest`` → ``{"holdfast-ingest"}``: who provides a package of the namespace, or one of an example, among those
    allowed here.

    Read from the folders that they were installed from: an editable package does not list its files.
    """
    rooms: dict[str, set[str]] = {}
    for name in ours:
        origin = json.loads(distribution(name).read_text("direct_url.json") or "{}")
        sources = Path(url2pathname(urlsplit(origin["url"]).path), "src")
        for room in (*(sources / "holdfast").glob("*/"), *sources.glob("*/")):
            rooms.setdefault(room.name, set()).add(name)
    return rooms


def imports(sources: Path) -> Iterator[tuple[Path, str]]:
    """Every absolute import, also those inside functions."""
    for path in sources.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield path, node.module


def failed_imports(project: dict[str, object]) -> list[str]:
    """Import each module of the member, as the installed package has it."""
    os.environ.update(SETTINGS)
    problems = []
    for package in top_packages(project):
        for module in modules(package):
            try:
                importlib.import_module(module)
            except (
                SystemExit
            ):  # an entry point that misses something to serve (the processor: handlers); its imports are done
                continue
            except Exception as exc:  # noqa: BLE001 (whatever it is, this is the list of it)
                problems.append(f"import {module}: {type(exc).__name__}: {exc}")
    return problems


def top_packages(project: dict[str, object]) -> list[str]:
    """``module-name`` of the build backend: one or a list."""
    named = project["tool"]["uv"]["build-backend"]["module-name"]  # type: ignore[index]
    return [named] if isinstance(named, str) else named


def modules(package: str) -> Iterator[str]:
    """The package and everything below it."""
    yield package
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        yield found.name


def normalized(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
