"""``tools/bootstrap``: what it says where it cannot work, and when it has nothing to do."""

import shutil
import subprocess
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


@pytest.fixture
def up_to_date(checkout: Path) -> Path:
    """A checkout with the stamp of an environment that was made from it."""
    (checkout / ".venv").mkdir()
    stamp = subprocess.run(
        ["sh", "-c", f"cat {' '.join(INGREDIENTS)} | cksum"], cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.rstrip("\n")
    (checkout / ".venv" / ".stamp").write_text(stamp)
    return checkout


def test_an_environment_that_is_up_to_date_is_left_alone(up_to_date: Path, bare_path: Path) -> None:
    done = bootstrap(up_to_date, bare_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("changed", ["requirements-dev.lock", "services/ingest/pyproject.toml", "tools/bootstrap"])
def test_a_changed_ingredient_is_noticed(up_to_date: Path, bare_path: Path, changed: str) -> None:
    with (up_to_date / changed).open("a") as file:
        file.write("# changed\n")

    assert bootstrap(up_to_date, bare_path).returncode == 1  # it goes on to look for a Python, and finds none
