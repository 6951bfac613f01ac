"""``tools/bootstrap``: what it says where it cannot work, and that it costs nothing where there is nothing to do."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

INGREDIENTS = (
    "requirements-dev.lock", "tools/bootstrap", "libs/*/pyproject.toml", "services/*/pyproject.toml",
    "deploy/local/pyproject.toml", "examples/*/pyproject.toml",
)  # fmt: skip


@pytest.fixture
def checkout(folder: Path) -> Path:
    """The files that the environment is made of, and nothing else."""
    for file in ["tools/bootstrap", "requirements-dev.lock", *map(str, ROOT.glob("*/*/pyproject.toml"))]:
        target = folder / Path(ROOT / file).relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, target)
    return folder


@pytest.fixture
def bare_path(folder: Path) -> Path:
    """A PATH with a few standard tools and no Python."""
    path = folder / "bin"
    path.mkdir()
    for tool in ("cat", "cksum", "cut", "dirname", "mkdir", "rm", "sh"):
        found = shutil.which(tool)
        assert found is not None
        (path / tool).symlink_to(found)
    return path


def bootstrap(checkout: Path, path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [checkout / "tools" / "bootstrap"], env={"PATH": str(path), "HOME": str(checkout)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_without_a_suitable_python_it_says_which_and_how(checkout: Path, bare_path: Path) -> None:
    too_old = bare_path / "python3"
    too_old.write_text("#!/bin/sh\nexit 1\n")
    too_old.chmod(0o755)

    done = bootstrap(checkout, bare_path)

    assert done.returncode == 1
    assert "Python 3.11, 3.12 or 3.13" in done.stderr
    assert "apt install" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_environment_that_is_up_to_date_is_left_alone_at_once() -> None:
    began = time.monotonic()

    done = subprocess.run(
        [ROOT / "tools" / "bootstrap"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 2  # 0.02 s on an idle machine


@pytest.mark.parametrize("changed", ["requirements-dev.lock", "services/ingest/pyproject.toml", "tools/bootstrap"])
def test_a_changed_ingredient_is_noticed(checkout: Path, bare_path: Path, changed: str) -> None:
    (checkout / ".venv").mkdir()
    stamp = subprocess.run(
        ["sh", "-c", f"cat {' '.join(INGREDIENTS)} | cksum"], cwd=checkout, capture_output=True, text=True, check=True,
    ).stdout.rstrip("\n")  # fmt: skip
    (checkout / ".venv" / ".stamp").write_text(stamp)
    assert bootstrap(checkout, bare_path).returncode == 0

    with (checkout / changed).open("a") as file:
        file.write("# changed\n")

    assert bootstrap(checkout, bare_path).returncode == 1  # it goes on to look for a Python, and finds none
