"""Build the documentation site from the tree's Markdown files: ``make docs``.

Every document is staged at its own path, with the files that documents link to, so that one relative link serves the site
and a code host alike. ``llms.txt`` (llmstxt.org) lists the pages with their first sentences, for readers that are programs.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from tools.house.tree import Tree

ROOT = Path(__file__).parents[1]
STAGE = ROOT / ".holdfast" / "docs" / "src"
SITE = ROOT / ".holdfast" / "docs" / "site"

_LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")


def stage(tree: Tree) -> None:
    """Copy every document, and what documents link to."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for path in tree.files(".md"):
        if path.startswith(".github/"):
            continue
        for name in {path, *_linked(tree, path)}:
            (STAGE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, STAGE / name)


def _linked(tree: Tree, path: str) -> Iterator[str]:
    for target in _LINK.findall(tree.text(path)):
        there = (ROOT / path).parent / target
        if "://" not in target and there.is_file():
            yield str(there.resolve().relative_to(ROOT))


def llms_text(tree: Tree) -> str:
    """The site's pages as https://llmstxt.org describes: a title, a summary, and a list of links."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    lines = [f"# {settings['site_name']}", "", f"> {settings['site_description']}"]
    for section in settings["nav"]:
        [(title, pages)] = section.items()
        lines += ["", f"## {title}", "", *_entries(tree, pages if isinstance(pages, list) else [{title: pages}])]
    return "\n".join(lines) + "\n"


def _entries(tree: Tree, pages: list[dict[str, object]]) -> Iterator[str]:
    for page in pages:
        [(title, where)] = page.items()
        if isinstance(where, list):
            yield from _entries(tree, where)
        else:
            yield f"- [{title}](/{where}): {_first_sentence(tree.text(str(where)))}"


def _first_sentence(text: str) -> str:
    """Of the first paragraph that is prose."""
    prose = [part for part in text.split("\n\n") if part and part[0].isalnum() and not part.startswith("#")]
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(prose[0].split())) if prose else ""
    return plain.partition(". ")[0].rstrip(".:")


def main() -> int:
    """Build; the exit status."""
    tree = Tree(ROOT)
    stage(tree)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    status = subprocess.run(command, cwd=ROOT, env=quiet, check=False)
    if status.returncode == 0:
        (SITE / "llms.txt").write_text(llms_text(tree))
        for path in STAGE.rglob("*.md"):  # as text beside each page, for the same readers
            (SITE / path.relative_to(STAGE)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, SITE / path.relative_to(STAGE))
        print(f"the site is in {SITE.relative_to(ROOT)}: python -m http.server -d {SITE.relative_to(ROOT)}")
    return status.returncode


if __name__ == "__main__":
    sys.exit(main())
