"""Key-encryption keys as text, the commands for them, and what is remembered of data keys."""

import subprocess
from collections.abc import Callable

import pytest

from holdfast.domain.encryption_keys import key_id, key_text, read_keys
from holdfast.domain.errors import ConfigurationError
from holdfast.runtime.expiring import Expiring
from holdfast.runtime.sealing import Broken, Cipher
from holdfast.storage.sealing import open_sealing

ONE, TWO = bytes(32), bytes(range(32))

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


def test_keys_are_read_in_their_order() -> None:
    assert read_keys(f" {key_text(ONE)} ,{key_text(TWO)}") == (ONE, TWO)
    assert key_id(ONE) != key_id(TWO)
    assert len(key_text(ONE)) == 48


@pytest.mark.parametrize(
    "wrong",
    ["", ",", "s3cret", "hfk1_s3cret", key_text(ONE)[:-1], f"{key_text(ONE)},{key_text(ONE)}", "hfk2_" + "A" * 43],
)
def test_what_is_no_key_is_refused_and_not_repeated(wrong: str, run_python: RunPython) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        read_keys(wrong)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigurationError):
        open_sealing(wrong)
    told = run_python(
        "-m", "holdfast.storage", "encryption", "status", DATABASE_URL="postgresql://h/n", ENCRYPTION_KEYS=wrong
    )
    assert (told.returncode, "HOLDFAST_ENCRYPTION_KEYS" in told.stderr, "s3cret" in told.stderr) == (1, True, False)


def test_a_new_key_is_printed_alone(run_python: RunPython) -> None:
    made = run_python("-m", "holdfast.storage", "encryption", "new-key")
    [key] = read_keys(made.stdout)
    assert key_id(key) in made.stderr
    assert made.stdout.strip() not in made.stderr


def test_the_commands_say_how_keys_stand(run_python: RunPython, database_url: str) -> None:
    def run(action: str, *options: str, **settings: str) -> str:
        done = run_python(
            "-m", "holdfast.storage", "encryption", action, *options, DATABASE_URL=database_url, **settings
        )
        return done.stdout if done.returncode == 0 else done.stderr

    assert run("status") == "nothing is sealed\n"
    assert "set HOLDFAST_ENCRYPTION_KEYS" in run("rewrap")
    assert run("rotate", "--tenant", "acme", ENCRYPTION_KEYS=key_text(ONE)).startswith("acme\t")
    assert run("rotate", ENCRYPTION_KEYS=key_text(ONE)).startswith("acme\t")
    assert run("status") == f"{key_id(ONE)}\tMISSING\tactive 1\tretired 1\n"
    both = f"{key_text(TWO)},{key_text(ONE)}"
    assert "at hand" in run("status", ENCRYPTION_KEYS=both)
    assert run("rewrap", ENCRYPTION_KEYS=both) == f"2 data keys are wrapped by {key_id(TWO)} now\n"
    assert run("status", ENCRYPTION_KEYS=key_text(TWO)) == f"{key_id(TWO)}\tcurrent\tactive 1\tretired 1\n"
    assert run("prune") == "0 data keys dropped\n"


def test_a_process_without_keys_does_not_load_cryptography(run_python: RunPython) -> None:
    asked = "import sys, holdfast.recording, holdfast.storage.database; print('cryptography.hazmat' in sys.modules)"
    assert run_python("-c", asked).stdout == "False\n"


def test_a_cipher_opens_what_it_sealed_and_nothing_else() -> None:
    sealed = Cipher(ONE).seal(b"data", b"here")
    assert Cipher(ONE).open(sealed, b"here") == b"data"
    assert Cipher(ONE).seal(b"data", b"here") != sealed
    for cipher, content, context in (
        (Cipher(TWO), sealed, b"here"),
        (Cipher(ONE), sealed, b"there"),
        (Cipher(ONE), b"", b""),
    ):
        with pytest.raises(Broken):
            cipher.open(content, context)


def test_what_is_remembered_ends_by_time_and_by_number() -> None:
    now = 0.0
    known: Expiring[int, str] = Expiring(60, most=2, clock=lambda: now)
    for number in (1, 2):
        known.put(number, str(number))
    known.get(1)
    known.put(3, "3")
    assert (known.get(1), known.get(2), known.get(3), len(known)) == ("1", None, "3", 2), "2 was asked for least"
    now = 60.0
    assert (known.get(1), known.get(3), len(known)) == (None, None, 0)
