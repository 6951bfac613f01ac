"""The files of a checkout, and what is said of them."""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Breach", "Tree", "body_lines", "functions"]


@dataclass(frozen=True, slots=True, order=True)
class Breach:
    """One place where a rule is broken."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


class Tree:
    """A folder whose files a rule may look at; in a checkout, those that git tracks or would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._paths = sorted(self._tracked() or self._all())

    def files(self, *suffixes: str, under: str = "") -> Iterator[str]:
        """Paths from the root, with these endings."""
        return (path for path in self._paths if path.endswith(suffixes) and path.startswith(under))

    def text(self, path: str) -> str:
        """A file's text."""
        return (self.root / path).read_text()

    def sources(self) -> Iterator[str]:
        """Python modules that are shipped; migrations, which are history, are left out."""
        return (path for path in self.files(".py") if "/src/" in path and "/migrations/" not in path)

    def parsed(self, path: str) -> ast.Module:
        """A module's syntax tree."""
        return ast.parse(self.text(path), filename=path)

    def has(self, path: Path) -> bool:
        """Whether a path, absolute or from the root, is there."""
        return (self.root / path).exists()

    def _tracked(self) -> list[str]:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        return [path for path in listed.stdout.splitlines() if (self.root / path).is_file()]

    def _all(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()]


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a module, methods and inner ones included."""
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
