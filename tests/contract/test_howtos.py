"""The Python of the how-to guides runs as it stands there, and the commands that they name exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from holdfast.client.cli import app
from holdfast.client.completion import commands_of
from holdfast.processor import Handlers

DOCS = Path(__file__).parents[2] / "docs"

HOWTOS = sorted(path.name for path in DOCS.glob("howto-*.md"))


@pytest.mark.parametrize("name", HOWTOS)
def test_the_python_of_a_guide_runs_and_its_tests_pass(name: str) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, name, "exec"), names)  # noqa: S102 (our own document)

    for function in [each for key, each in names.items() if key.startswith("test_")]:
        function()
    if (made := names.get("handlers")) is not None:
        assert isinstance(made, Handlers)
        assert len(made) > 0


@pytest.mark.parametrize("name", HOWTOS)
def test_the_commands_of_a_guide_exist(name: str) -> None:
    known = {each.words for each in commands_of(typer.main.get_command(app))}
    shell = "".join(re.findall(r"^```sh\n(.*?)^```", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE))
    named = re.findall(r"^holdfast ([a-z]+)(?: ([a-z]+))?", shell, re.MULTILINE)

    for first, second in named:
        assert f"holdfast {first}" in known, first
        if any(each.startswith(f"holdfast {first} ") for each in known):
            assert f"holdfast {first} {second}" in known, second
