"""Print every breach of the house rules; exit status 1 where there is one."""

import sys
from pathlib import Path

from tools.house.code import exports, formatting, sizes
from tools.house.documents import file_tables, links, words, wrapping
from tools.house.repository import commits, pinned_actions
from tools.house.tree import Tree

RULES = (sizes, exports, formatting, links, file_tables, wrapping, words, commits, pinned_actions)


def main() -> int:
    """The exit status."""
    tree = Tree(Path(__file__).parents[2])
    breaches = sorted(breach for rule in RULES for breach in rule(tree))
    for breach in breaches:
        print(breach)
    print(f"house rules: {len(RULES)} checked, {len(breaches)} broken")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
