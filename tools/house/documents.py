"""Rules for documents: links lead somewhere, file tables are complete, lines wrap, words are plain."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tools.house.tree import Breach, Tree

__all__ = ["file_tables", "links", "wrapping", "words"]

MOST_COLUMNS = 100

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^\s*(```|~~~)")
_MODULE = re.compile(r"`(?:src/\w+/)?([\w/]+\.py)`")

PLAIN = {
    r"\bcan not\b": "cannot",
    r"\bhad as soon as\b": "say what happens",
    r"\bwhoever\b": "name who it is",
}
"""Words that slow a hurried reader down, and what to write instead."""


def links(tree: Tree) -> Iterator[Breach]:
    """Every relative link of a Markdown file leads to a file that is there, and its fragment to a heading."""
    for path in tree.files(".md"):
        for number, line in _prose(tree.text(path)):
            for target in _LINK.findall(line):
                if "://" in target or target.startswith("mailto:"):
                    continue
                if reason := _broken(tree, path, target):
                    yield Breach(path, number, f"{target}: {reason}")


def _broken(tree: Tree, path: str, target: str) -> str:
    name, _, fragment = target.partition("#")
    there = PurePosixPath(path).parent / name if name else PurePosixPath(path)
    if not tree.has(Path(there)):
        return "there is no such file"
    if fragment and there.suffix == ".md" and fragment not in _anchors(tree.text(str(there))):
        return "there is no such heading"
    return ""


def _anchors(text: str) -> set[str]:
    """Anchors as GitHub makes them from headings."""
    headings = [line.lstrip("#").strip() for _, line in _prose(text) if line.startswith("#")]
    plain = [re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def file_tables(tree: Tree) -> Iterator[Breach]:
    """A README with a table of modules names each module of its package once, and none that is gone."""
    for path in tree.files("README.md"):
        folder = PurePosixPath(path).parent
        sources = [each for each in tree.sources() if each.startswith(f"{folder}/src/")]
        rows = [(number, line) for number, line in _prose(tree.text(path)) if line.startswith("| `")]
        named = {name: number for number, line in rows for name in _MODULE.findall(line.split("|")[1])}
        if not named or not sources:
            continue
        package = _package(sources)
        modules = {each.removeprefix(package) for each in sources if not each.endswith("__init__.py")}
        for name in sorted(named.keys() - modules):
            yield Breach(path, named[name], f"{name} is not in {package}")
        for name in sorted(modules - named.keys()):
            yield Breach(path, 1, f"{name} is missing in the table of files")


def _package(sources: list[str]) -> str:
    """The folder of the package: ``services/ingest/src/holdfast/ingest/``."""
    parts = PurePosixPath(min(sources, key=lambda each: each.count("/"))).parts
    return "/".join(parts[:-1]) + "/"


def wrapping(tree: Tree) -> Iterator[Breach]:
    """Prose wraps at 100 columns. Tables, code and lines that one link or word fills may be longer."""
    for path in tree.files(".md"):
        for number, line in _prose(tree.text(path)):
            is_free = line.lstrip().startswith(("|", "#")) or " " not in line.strip().lstrip("-*0123456789. ")
            if len(line) > MOST_COLUMNS and not is_free and " " in line[:MOST_COLUMNS].strip():
                yield Breach(path, number, f"{len(line)} columns; {MOST_COLUMNS} at most")


def words(tree: Tree) -> Iterator[Breach]:
    """Plain words in documents and in the text of shipped code."""
    for path in [*tree.files(".md"), *tree.sources()]:
        for number, line in enumerate(tree.text(path).splitlines(), 1):
            for pattern, better in PLAIN.items():
                if re.search(pattern, line, re.IGNORECASE):
                    yield Breach(path, number, f"{re.search(pattern, line, re.IGNORECASE)[0]}: {better}")  # type: ignore[index]


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines outside code fences."""
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code:
            yield number, line
