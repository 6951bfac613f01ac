"""``python -m holdfast.processor check``: what handlers serve, or what is wrong and where."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
from holdfast.processor import Backoff, Context, Handlers

handlers = Handlers()


@handlers.on("shop.paid", "shop.refund.*", name="book", timeout=5, retry=Backoff(first=1, attempts=3), ordering="subject")
def book(order: dict, ctx: Context) -> None: ...
"""


def check(folder: Path, code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (folder / "shop.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-m", "holdfast.processor", "check", *(arguments or ("shop:handlers",))], cwd=folder,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_handlers_are_listed_with_their_options_and_place(tmp_path: Path) -> None:
    shown = check(tmp_path, GOOD)
    told = json.loads(check(tmp_path, GOOD, "shop:handlers", "-o", "json").stdout)

    header, line = shown.stdout.splitlines()
    assert (shown.returncode, header.split()) == (0, ["NAME", "TYPES", "OPTIONS", "PLACE"])
    assert line.split("  ")[:3] == ["book", "shop.paid, shop.refund.*", "timeout=5 attempts=3 ordering=subject"]
    assert line.endswith("shop.py:7")
    assert told["handlers"][0] | {"place": ""} == {
        "name": "book", "types": ["shop.paid", "shop.refund.*"], "place": "", "timeout_seconds": 5, "attempts": 3,
        "transactional": True, "ordering": "subject", "batch": 1, "async": False, "also": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("timeout=5", "timeout=-1", ["shop.py:7", "timeout takes seconds"]),
        ('ordering="subject"', 'ordering="topic"', ["shop.py:7", 'ordering takes "subject" or None']),
        ("order: dict, ctx: Context", "order: dict", ["shop.py:7", "takes two arguments"]),
        ("order: dict", "order: Missing", ["shop.py", "line 8", "Missing"]),
        ("def book(", "def book((", ["shop.py", "line 8", "SyntaxError"]),
        ("handlers = Handlers()", "handlers = 1 / 0", ["shop.py", "line 4", "ZeroDivisionError"]),
        ("handlers = Handlers()", "handlers = Handlers()\nraise SystemExit", ["shop.py", "line 5"]),
        ("handlers = Handlers()", "other = Handlers()", ["NameError"]),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    done = check(tmp_path, GOOD.replace(old, new))

    assert (done.returncode, done.stdout) == (1, "")
    assert [words for words in said if words not in done.stderr] == [], done.stderr
    assert "importlib" not in done.stderr


def test_coroutines_and_further_handlers_are_told(tmp_path: Path) -> None:
    more = '@handlers.on("shop.paid", also=True, name="ask")\nasync def ask(data: dict, ctx: Context) -> None: ...\n'

    line = check(tmp_path, f"{GOOD}\n{more}").stdout.splitlines()[-1]

    assert [each.strip() for each in line.split("  ") if each][:3] == [
        "ask",
        "shop.paid",
        "timeout=60 attempts=8 async also",
    ]


def test_two_handlers_for_one_type_are_both_named(tmp_path: Path) -> None:
    twice = GOOD + GOOD.partition("Handlers()\n")[2].replace('name="book"', 'name="other"')

    done = check(tmp_path, twice, "shop:handlers", "-o", "json")

    error = json.loads(done.stdout)["error"]
    assert done.returncode == 1
    assert "two handlers claim 'shop.paid'" in error
    assert "shop.py:7" in error
    assert "shop.py:11" in error
