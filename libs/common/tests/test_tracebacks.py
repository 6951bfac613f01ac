"""Errors as text: bounded and never an error themselves, whatever a stranger's exception does."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.runtime.tracebacks import MAX_MESSAGE, MAX_TRACEBACK, MAX_TYPE, error_text, error_type, format_error

NOWHERE = "the error has no message: its __str__ failed"


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as exc:  # noqa: BLE001
        return exc
    raise AssertionError("nothing was raised")


def say(exc: BaseException) -> BaseException:
    def where_it_happened() -> None:
        raise exc

    return raised(where_it_happened)


class Loud(Exception):
    """Its ``__str__`` does what it was made with."""

    def __str__(self) -> Any:
        return self.args[0]()

    __repr__ = __str__


def exit_now() -> None:
    sys.exit(3)


def recurse() -> Any:
    return recurse()


def fail() -> None:
    raise ValueError("no words")


class OddText(str):
    """A text that is not cut by cutting it."""

    __slots__ = ()

    def __getitem__(self, _: Any) -> Any:
        raise ValueError("no")

    def __str__(self) -> str:
        return self

    def replace(self, *_: Any) -> Any:
        raise ValueError("no")

    def encode(self, *_: Any, **__: Any) -> Any:
        raise ValueError("no")


@pytest.mark.parametrize("words", [exit_now, recurse, fail, lambda: 7, lambda: None])
def test_an_error_whose_str_fails_is_still_told_with_its_frames(words: Callable[[], Any]) -> None:
    told = format_error(say(Loud(words)), with_texts=True)

    assert NOWHERE in told
    assert "in where_it_happened" in told


@pytest.mark.parametrize(
    "text",
    ["x" * 5_000_000, OddText("x" * 5_000_000), "\0" * 50_000, "\ud800" * 50_000],
    ids=["long", "odd", "nul", "surrogates"],
)
def test_a_text_of_any_size_and_kind_is_short_and_can_be_stored(text: str) -> None:
    for exc in (ValueError(text), Loud(lambda: text)):
        told, full = error_text(exc), format_error(say(exc), with_texts=True)

        assert len(told) == MAX_MESSAGE
        assert type(told) is str
        assert len(full) < MAX_TRACEBACK
        assert "in where_it_happened" in full
        assert "\0" not in told + full
        assert (told + full).encode()


class OddKind(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise ValueError("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=OddKind):
    pass


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Nameless, "Exception"),
        (type("x" * 1_000_000, (Exception,), {}), "x" * MAX_TYPE),
        (type("", (Exception,), {}), "Exception"),
    ],
)
def test_a_type_has_a_name_of_a_bounded_length(kind: type[Exception], name: str) -> None:
    assert error_type(kind()) == name


def chain(count: int, attribute: str) -> BaseException:
    exc: BaseException = say(KeyError("the first of all"))
    for number in range(count):
        later = say(ValueError(f"number {number} " + "x" * 5_000))
        setattr(later, attribute, exc)
        exc = later
    return exc


@pytest.mark.parametrize("attribute", ["__cause__", "__context__"])
@pytest.mark.parametrize("count", [1, 7, 1_500, 20_000])
def test_a_chain_of_any_length_is_told_from_both_ends(count: int, attribute: str) -> None:
    told = format_error(chain(count, attribute), with_texts=True)

    assert len(told) <= MAX_TRACEBACK
    assert f"number {count - 1} " in told
    assert ("the first of all" in told) == (count < 10_000), "of a longer one only so many links are looked at"
    assert ("left out" in told) == (count > 7)


def test_errors_that_lead_to_each_other_are_told_once() -> None:
    first, second = say(ValueError("a")), say(ValueError("b"))
    first.__cause__, second.__cause__ = second, first

    assert format_error(first, with_texts=True).count("ValueError: ") == 2


def test_what_was_suppressed_is_not_told() -> None:
    def forget() -> None:
        try:
            fail()
        except ValueError:
            raise KeyError("told") from None

    assert "no words" not in format_error(raised(forget), with_texts=True)


def group(depth: int) -> BaseException:
    exc: BaseException = say(ValueError("innermost"))
    for _ in range(depth):
        exc = BaseExceptionGroup("several", [exc])
    return exc


@pytest.mark.parametrize("depth", [1, 1_000])
def test_groups_of_any_depth_are_told(depth: int) -> None:
    told = format_error(say(group(depth)), with_texts=True)

    assert "innermost" in told
    assert len(told) <= MAX_TRACEBACK


def test_a_wide_group_is_bounded() -> None:
    exc = ExceptionGroup("several", [ValueError(f"number {number}") for number in range(50_000)])

    assert len(format_error(say(exc), with_texts=True)) <= MAX_TRACEBACK


class Restless(Exception):
    """Has another cause each time that it is asked."""

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        return Restless()

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise ValueError("no notes")


@pytest.mark.parametrize("notes", [["a note", "x" * 1_000_000, 7], 7, None, [OddText("a note")]], ids=range(4))
def test_notes_are_bounded_and_may_be_anything(notes: Any) -> None:
    exc = ValueError("x")
    exc.__notes__ = notes

    assert len(format_error(say(exc), with_texts=True)) < 5_000
    assert "in where_it_happened" in format_error(say(Restless("x")), with_texts=True)


def test_a_deep_traceback_keeps_both_ends() -> None:
    def go_down(depth: int) -> None:
        if depth == 0:
            raise ValueError("at the bottom")
        go_down(depth - 1)

    told = format_error(raised(lambda: go_down(900)), with_texts=True)

    assert "in raised" in told
    assert 'raise ValueError("at the bottom")' in told
    assert "frames are left out" in told
    assert len(told) < 8_000


def test_compiled_text_may_have_any_name_and_is_not_looked_for_in_files() -> None:
    def run(name: str) -> None:
        exec(compile("raise ValueError('x')", name, "exec"), {})  # noqa: S102

    for name in ("/dev/zero", "x" * 1_000_000, "\udcff"):
        told = format_error(raised(lambda name=name: run(name)), with_texts=True)  # type: ignore[misc]

        assert "in <module>" in told
        assert len(told) < 8_000
        assert told.encode()


def test_without_texts_the_frames_stay() -> None:
    told = format_error(chain(3, "__cause__"), with_texts=False)

    assert told.count("in where_it_happened") == 4
    assert "number" not in told
    assert "KeyError" in told
