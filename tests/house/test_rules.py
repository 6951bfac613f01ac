"""Each house rule finds what it is for, and leaves what is right alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tools.house import code, documents, repository
from tools.house.tree import Breach, Tree

Rule = Callable[[Tree], Iterator[Breach]]

SOURCE = "services/shop/src/shop/orders.py"


def breaches(rule: Rule, folder: Path, **files: str) -> list[str]:
    """What the rule says of a folder with these files; ``__`` in a name is a slash, ``_md`` and so on its ending."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [breach.what for breach in rule(Tree(folder))]


def lines(count: int) -> str:
    return "def place():\n" + "    x = 1\n" * count


@pytest.mark.parametrize(("count", "is_broken"), [(40, False), (41, True)])
def test_a_function_has_at_most_forty_lines(tmp_path: Path, count: int, is_broken: bool) -> None:
    small = "".join(f"def small_{n}():\n    return {n}\n" for n in range(50))

    found = breaches(code.sizes, tmp_path, **{SOURCE: small + lines(count)})

    assert any("place has" in each for each in found) is is_broken


def test_the_docstring_does_not_count_as_body(tmp_path: Path) -> None:
    docstring = '    """' + "A line.\n" * 60 + '"""\n'

    assert breaches(code.sizes, tmp_path, **{SOURCE: f"def place():\n{docstring}    return 1\n"}) == []


def test_functions_are_small_on_the_whole(tmp_path: Path) -> None:
    found = breaches(code.sizes, tmp_path, **{SOURCE: "".join(lines(20).replace("place", f"p{n}") for n in range(9))})

    assert len(found) == 2, "the median, and one in ten"


@pytest.mark.parametrize(("count", "is_broken"), [(18, False), (19, True)])
def test_a_module_has_at_most_eighteen_imports(tmp_path: Path, count: int, is_broken: bool) -> None:
    text = "".join(f"import module_{n}\n" for n in range(count))

    assert bool(breaches(code.sizes, tmp_path, **{SOURCE: text})) is is_broken


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('__all__ = ["place"]\ndef place(): ...\n', []),
        ('__all__ = ["place", "gone"]\ndef place(): ...\n', ["__all__ names gone, which is not there"]),
        ('__all__ = ["place"]\ndef place(): ...\ndef cancel(): ...\n', ["cancel is public and not in __all__"]),
        ('__all__ = ["place"]\ndef place(): ...\n@route\ndef show(): ...\ndef _hidden(): ...\n', []),
    ],
)
def test_export_lists_are_exact(tmp_path: Path, text: str, what: list[str]) -> None:
    assert breaches(code.exports, tmp_path, **{SOURCE: text}) == what


def test_a_constant_that_others_import_is_exported(tmp_path: Path) -> None:
    other = "services/shop/src/shop/bill.py"
    files = {SOURCE: '__all__ = ["place"]\nLIMIT = 3\ndef place(): ...\n', other: "from shop.orders import LIMIT\n"}

    assert breaches(code.exports, tmp_path, **files) == ["LIMIT is public and not in __all__"]


@pytest.mark.parametrize(
    ("text", "is_broken"), [("x = [1, 2]  # fmt: skip\n", True), ("x = [\n    1, 2,\n]  # fmt: skip\n", False)]
)
def test_a_suppression_has_to_change_something(tmp_path: Path, text: str, is_broken: bool) -> None:
    assert bool(breaches(code.formatting, tmp_path, **{SOURCE: text})) is is_broken


@pytest.mark.parametrize(
    ("link", "what"),
    [
        ("[x](b.md)", []),
        ("[x](b.md#two-words-of-it)", []),
        ("[x](https://example.com/none)", []),
        ("[x](c.md)", ["c.md: there is no such file"]),
        ("[x](b.md#three)", ["b.md#three: there is no such heading"]),
        ("```\n[x](c.md)\n```", []),
    ],
)
def test_links_lead_somewhere(tmp_path: Path, link: str, what: list[str]) -> None:
    assert breaches(documents.links, tmp_path, **{"a.md": link, "b.md": "## Two words of `it`\n"}) == what


def test_a_table_of_files_is_complete_and_names_none_that_is_gone(tmp_path: Path) -> None:
    table = "| file | what |\n|---|---|\n| `orders.py`, `bills.py` | orders |\n"

    found = breaches(documents.file_tables, tmp_path, **{
        "services/shop/README.md": table, SOURCE: "", "services/shop/src/shop/sub/stock.py": "",
    })  # fmt: skip

    assert sorted(found) == [
        "bills.py is not in services/shop/src/shop/",
        "sub/stock.py is missing in the table of files",
    ]


@pytest.mark.parametrize(
    ("line", "is_broken"),
    [
        ("word " * 19, False),
        ("word " * 25, True),
        ("| " + "word " * 25 + "|", False),
        ("- " + "x" * 120, False),
    ],
)
def test_prose_wraps_at_a_hundred_columns(tmp_path: Path, line: str, is_broken: bool) -> None:
    assert bool(breaches(documents.wrapping, tmp_path, **{"a.md": line})) is is_broken


def test_words_that_slow_a_reader_down_are_found(tmp_path: Path) -> None:
    assert breaches(documents.words, tmp_path, **{SOURCE: "# it can not start\n"}) == ["can not: cannot"]


@pytest.mark.parametrize(
    ("uses", "is_broken"),
    [("actions/checkout@v4", True), ("actions/checkout@" + "a" * 40, False), ("./.github/actions/setup", False)],
)
def test_actions_are_pinned_by_hash(tmp_path: Path, uses: str, is_broken: bool) -> None:
    files = {".github/workflows/ci.yml": f"      - uses: {uses}\n"}

    assert bool(breaches(repository.pinned_actions, tmp_path, **files)) is is_broken
