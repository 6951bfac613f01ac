"""Environments for the peers, made once from their locks with uv: what they need must not meet what Holdfast needs."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["ROOT", "for_oban", "for_peers"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".holdfast" / "bench"
LOCKS = Path(__file__).parent

OBAN_PYTHON = (3, 12)
INSTALL_SECONDS = 600


def for_peers(*, say: Callable[[str], object]) -> Path:
    """The interpreter for Celery, Dramatiq and Procrastinate, of the same Python as this one.

    Raises:
        RuntimeError: uv is missing or could not install.
    """
    version = ".".join(map(str, sys.version_info[:2]))
    return _environment(f"peers-{version}", Path(sys.executable), LOCKS / "requirements.lock", say)


def for_oban(*, say: Callable[[str], object]) -> Path | None:
    """The interpreter for Oban, or ``None``, which is said, where there is no Python that is new enough.

    Raises:
        RuntimeError: uv is missing or could not install.
    """
    python = _find_python()
    if python is None:
        say(
            "Oban is left out: it needs Python 3.12 or newer; install one, or name it in BENCH_OBAN_PYTHON=/path/to/python"
        )
        return None
    version = _ask(python, "import sys; print('%d.%d' % sys.version_info[:2])")
    return _environment(f"oban-{version}", python, LOCKS / "oban" / "requirements.lock", say)


def _environment(name: str, base: Path, lock: Path, say: Callable[[str], object]) -> Path:
    folder = FOLDER / name
    python, stamp = folder / "bin" / "python", folder / ".stamp"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not python.exists() or not stamp.exists() or stamp.read_text() != wanted:
        say(f"installing {lock.relative_to(ROOT)} into {folder.relative_to(ROOT)}")
        FOLDER.mkdir(parents=True, exist_ok=True)
        _uv("venv", "--quiet", "--clear", "--python", str(base), str(folder))
        _uv("pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(lock))
        stamp.write_text(wanted)
    return python


def _uv(*arguments: str) -> None:
    """Behind a proxy with a certificate of its own only the system's certificates will do: the second try is with those."""
    settings = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_COMPILE_BYTECODE": "1"}
    for more in ({}, {"UV_SYSTEM_CERTS": "1"}):
        done = subprocess.run(
            [_find_uv(), *arguments], env=settings | more, capture_output=True, text=True, timeout=INSTALL_SECONDS,
            check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return
    raise RuntimeError(f"uv {arguments[0]} failed; check the network and try again:\n{done.stderr.strip()}")


def _find_uv() -> str:
    own = ROOT / ".holdfast" / "uv" / "bin" / "uv"
    found = os.environ.get("UV") or (str(own) if own.exists() else shutil.which("uv"))
    if found is None:
        raise RuntimeError("uv is not there: run make, which installs it, or name one in UV=/path/to/uv")
    return found


def _find_python() -> Path | None:
    """The first that runs and is new enough. A shim may stand for a version that is not selected, hence the try."""
    for candidate in _candidates():
        if found := _ask(candidate, f"import sys; sys.version_info >= {OBAN_PYTHON} and print(sys.executable)"):
            return Path(found)
    return None


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("BENCH_OBAN_PYTHON"):
        yield Path(named)
    yield Path(sys.executable)
    for version in ("3.12", "3.13", "3.14"):
        if found := shutil.which(f"python{version}"):
            yield Path(found)
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for version in ("3.12", "3.13", "3.14"):
        yield from sorted(versions.glob(f"{version}.*/bin/python{version}"))


def _ask(python: Path, question: str) -> str:
    """What an interpreter prints; nothing where it does not run."""
    try:
        done = subprocess.run([python, "-c", question], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
