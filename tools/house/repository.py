"""Rules for the repository: commit subjects, and actions pinned by hash."""

import re
import subprocess
from collections.abc import Iterator

from tools.house.tree import Breach, Tree

__all__ = ["commits", "pinned_actions"]

MOST_SUBJECT_COLUMNS = 60

SINCE = "1cd9852"
"""The last commit before the rule was checked."""

_USES = re.compile(r"uses:\s*(\S+)")
_PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def commits(tree: Tree) -> Iterator[Breach]:
    """Subjects of commits are at most 60 columns long. A shallow clone shows only what it has."""
    for line in _log(tree, f"{SINCE}..HEAD") or _log(tree, "-1"):
        commit, _, subject = line.partition(" ")
        if len(subject) > MOST_SUBJECT_COLUMNS and not subject.startswith("Merge "):
            yield Breach(commit, 0, f"{subject!r} has {len(subject)} columns; {MOST_SUBJECT_COLUMNS} at most")


def _log(tree: Tree, which: str) -> list[str]:
    command = ["git", "log", "--format=%h %s", which]
    return subprocess.run(command, cwd=tree.root, capture_output=True, text=True, check=False).stdout.splitlines()


def pinned_actions(tree: Tree) -> Iterator[Breach]:
    """Actions are named by the hash of a commit: a tag can be moved."""
    for path in tree.files(".yml", ".yaml", under=".github/"):
        for number, line in enumerate(tree.text(path).splitlines(), 1):
            used = _USES.search(line)
            if used and not used[1].startswith("./") and not _PINNED.fullmatch(used[1]):
                yield Breach(path, number, f"{used[1]} is not pinned by a commit's hash")
