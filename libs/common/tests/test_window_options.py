"""Windows as options: what they stand for, and what is said about wrong ones."""

from typing import Any

import pytest

from holdfast.domain.window import window_faults
from holdfast.domain.window_options import Debounce, Unique, debounce_of, unique_of, window_attributes


@pytest.mark.parametrize(
    ("debounce", "unique", "attributes"),
    [
        (Debounce(30), None, {"debounceseconds": 30}),
        (
            Debounce(30, key="doc-1", max_seconds=60),
            None,
            {"debounceseconds": 30, "debouncekey": "doc-1", "debouncemaxseconds": 60},
        ),
        (None, Unique(3600), {"uniqueseconds": 3600}),
        (None, Unique(3600, key="boiler"), {"uniqueseconds": 3600, "uniquekey": "boiler"}),
        (None, None, {}),
    ],
)
def test_an_option_stands_for_attributes_and_is_read_from_them(
    debounce: Debounce | None, unique: Unique | None, attributes: dict[str, Any]
) -> None:
    assert window_attributes(debounce, unique, {"region": "eu"}) == attributes
    assert list(window_faults(attributes)) == []
    assert (debounce_of(attributes), unique_of(attributes)) == (debounce, unique)


def test_an_option_is_read_from_the_texts_of_headers() -> None:
    assert debounce_of({"debounceseconds": "30", "debouncemaxseconds": "60"}) == Debounce(30, max_seconds=60)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (Debounce, (0,), "seconds is a whole number of seconds from 1 to 86400, such as 30; not 0"),
        (Debounce, (1.5,), "seconds is a whole number of seconds from 1 to 86400, such as 30; not 1.5"),
        (Debounce, ("30",), "seconds is a whole number of seconds, such as 30; not '30'"),
        (Debounce, (None,), "seconds is a whole number of seconds from 1 to 86400, such as 30; not a NoneType"),
        (Debounce, (30, 7), "key is a string; not 7"),
        (Debounce, (30, ""), "key has 1 to 255 bytes in UTF-8, and this one has 0; send a shorter key or a hash"),
        (Debounce, (30, "k", 29), "max_seconds is at least seconds, which is 30; not 29"),
        (Unique, (2_592_001,), "seconds is a whole number of seconds from 1 to 2592000, such as 30; not 2592001"),
        (Unique, (True,), "seconds is a whole number of seconds from 1 to 2592000, such as 30; not True"),
    ],
)
def test_a_wrong_option_names_what_was_given_and_the_remedy(
    kind: type[Debounce] | type[Unique], given: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=kind.__name__) as caught:
        kind(*given)
    assert str(caught.value) == f"{kind.__name__}: {said}"


@pytest.mark.parametrize(
    ("debounce", "unique", "extensions", "kind", "said"),
    [
        (30, None, {}, TypeError, "debounce is a Debounce, such as Debounce(30, key=…); not 30"),
        (None, Debounce(30), {}, TypeError, "unique is a Unique, such as Unique(30, key=…); not Debounce(seconds=30"),
        (Debounce(30), Unique(30), {}, ValueError, "an event has debounce or unique, not both: leave one out of"),
        (
            Debounce(30),
            None,
            {"uniqueseconds": 5, "debouncekey": "a"},
            ValueError,
            "leave debouncekey, uniqueseconds out",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    debounce: Any, unique: Any, extensions: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        window_attributes(debounce, unique, extensions)
    assert said in str(caught.value)


def test_an_attribute_that_is_not_given_is_none_beside_an_option() -> None:
    assert window_attributes(Debounce(30), None, {"uniqueseconds": None}) == {"debounceseconds": 30}
