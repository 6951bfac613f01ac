"""Rules for code: small functions, few imports, exact export lists, no suppression that changes nothing."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.house.tree import Breach, Tree, body_lines, functions

__all__ = ["exports", "formatting", "sizes"]

MEDIAN_LINES, MOST_LINES_OF_NINE_IN_TEN, MOST_LINES = 5, 14, 40
MOST_IMPORTS = 18
MOST_FILE_LINES = 400

_SKIP = re.compile(r"  # fmt: skip$", re.MULTILINE)


def sizes(tree: Tree) -> Iterator[Breach]:
    """Function bodies (without docstrings), imports and files stay small."""
    lines: list[int] = []
    for path in tree.sources():
        module = tree.parsed(path)
        for function in functions(module):
            lines.append(body_lines(function))
            if lines[-1] > MOST_LINES:
                yield Breach(path, function.lineno, f"{function.name} has {lines[-1]} lines; {MOST_LINES} at most")
        yield from _of_file(tree, path, module)
    lines = sorted(filter(None, lines))
    if lines and statistics.median(lines) > MEDIAN_LINES:
        yield Breach(".", 0, f"the median function has {statistics.median(lines)} lines; {MEDIAN_LINES} at most")
    if lines and lines[int(0.9 * len(lines))] > MOST_LINES_OF_NINE_IN_TEN:
        yield Breach(".", 0, f"one function in ten is longer than {MOST_LINES_OF_NINE_IN_TEN} lines")


def _of_file(tree: Tree, path: str, module: ast.Module) -> Iterator[Breach]:
    imports = sum(isinstance(node, ast.Import | ast.ImportFrom) for node in module.body)
    if imports > MOST_IMPORTS:
        yield Breach(path, 1, f"{imports} imports; {MOST_IMPORTS} at most")
    if (count := tree.text(path).count("\n")) > MOST_FILE_LINES:
        yield Breach(path, 1, f"{count} lines; {MOST_FILE_LINES} at most")


def exports(tree: Tree) -> Iterator[Breach]:
    """``__all__`` names a module's public functions and classes and whatever others import, and nothing that is not there.

    ``__main__``, packages' ``__init__`` without ``__all__``, and modules that nobody imports from need none.
    """
    modules = {_module_name(path): path for path in tree.sources() if not path.endswith("__main__.py")}
    imported = _imported(tree)
    for name, path in sorted(modules.items()):
        module = tree.parsed(path)
        listed, defined = _listed(module), _defined(module)
        if listed is None:
            if not path.endswith("__init__.py") and (missing := sorted(imported.get(name, set()) & defined)):
                yield Breach(path, 1, f"no __all__, and others import {', '.join(missing)}")
            continue
        for each in sorted(listed - defined):
            yield Breach(path, 1, f"__all__ names {each}, which is not there")
        used = {each for each in imported.get(name, set()) & defined if f"{name}.{each}" not in modules}
        for each in sorted((used | _public(module)) - listed):
            yield Breach(path, 1, f"{each} is public and not in __all__")


def _module_name(path: str) -> str:
    return path.partition("/src/")[2].removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imported(tree: Tree) -> dict[str, set[str]]:
    """Module → names that other shipped modules import from it."""
    found: dict[str, set[str]] = {}
    for path in tree.sources():
        for node in ast.walk(tree.parsed(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return found


def _listed(module: ast.Module) -> set[str] | None:
    for node in module.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return None


def _public(module: ast.Module) -> set[str]:
    """Functions and classes without an underscore. A decorator has registered a decorated function: it is found by that."""
    return {
        node.name
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and (isinstance(node, ast.ClassDef) or not node.decorator_list)
    }


def _defined(module: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in module.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign():
                names.update(name.id for t in node.targets for name in ast.walk(t) if isinstance(name, ast.Name))
            case ast.AnnAssign(target=ast.Name() as target):
                names.add(target.id)
            case ast.ImportFrom() | ast.Import():
                names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
    return names


def formatting(tree: Tree) -> Iterator[Breach]:
    """A ``# fmt: skip`` without which ruff would write the same lines is noise."""
    for path in tree.files(".py"):
        text = tree.text(path)
        for match in _SKIP.finditer(text):
            without = text[: match.start()] + text[match.end() :]
            if _formatted(tree.root, path, without) == without:
                yield Breach(path, text.count("\n", 0, match.start()) + 1, "this fmt: skip changes nothing")


def _formatted(root: Path, path: str, text: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    command = [str(ruff), "format", "--stdin-filename", path, "-"]
    return subprocess.run(command, cwd=root, input=text, capture_output=True, text=True, check=False).stdout
