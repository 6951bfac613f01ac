"""Which data is the same: by value with exact decimals, by bytes, and in either mode."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.data import Data, is_same_data, unwrapped

JSON = "application/json"

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def of(text: str, content_type: str | None = JSON) -> Data:
    return Data(text.encode(), True, content_type)


def sent_as_bytes(text: str, content_type: str | None) -> Data:
    return Data(text.encode(), False, content_type)


NOTHING = Data(None, False, None)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (of("1.10"), of("1.1"), True),
        (of("1e2"), of("100"), True),
        (of("-0.0"), of("0"), True),
        (of("19.990000000000000000001"), of("19.99"), False),
        (of("12345678901234567890123"), of("12345678901234567890124"), False),
        (of("1e-400"), of("0"), False),
        (of("1e-9999999999999999999"), of("1e-9999999999999999998"), False),
        (of("1e-9999999999999999999"), of(" 1e-9999999999999999999"), True),
        (of("true"), of("1"), False),
        (of('{"a": [false]}'), of('{"a": [0]}'), False),
        (of('"1"'), of("1"), False),
        (of("null"), NOTHING, False),
        (NOTHING, NOTHING, True),
        (sent_as_bytes("", None), NOTHING, False),
        (of('{"a": 1, "b": "\\u00fc\\/"}'), of('{"b":"ü/","a":1.0}'), True),
        (of("[1, 2]"), of("[2, 1]"), False),
        (of('{"a": 1}'), of('{"a": 1, "b": null}'), False),
        (of('"a"', "text/plain"), sent_as_bytes("a", "text/plain"), True),
        (of('"a"', "text/plain"), sent_as_bytes('"a"', "text/plain"), False),
        (of('{"n":1}'), sent_as_bytes('{"n": 1.0}', "application/vnd.x+json"), True),
        (sent_as_bytes("n=1", "text/plain"), sent_as_bytes("n=1.0", "text/plain"), False),
        (sent_as_bytes("{", JSON), sent_as_bytes("{", JSON), True),
        (sent_as_bytes("1", "text/plain"), of("1"), False),
    ],
)
def test_data_is_the_same_if_it_means_the_same(one: Data, other: Data, is_same: bool) -> None:
    assert is_same_data(one, other) is is_same
    assert is_same_data(other, one) is is_same


@given(VALUES)
def test_the_form_of_a_text_does_not_count(value: Any) -> None:
    def reversed_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(pairs))

    compact = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    other = json.dumps(json.loads(compact, object_pairs_hook=reversed_names), indent=1, ensure_ascii=True)

    assert is_same_data(of(compact), of(other))


WHOLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner | inner, max_size=3),
    max_leaves=4,
)


@given(WHOLE, WHOLE)
def test_data_is_the_same_if_and_only_if_its_canonical_text_is(one: Any, other: Any) -> None:
    texts = [json.dumps(value, sort_keys=True) for value in (one, other)]

    assert is_same_data(of(texts[0]), of(texts[1])) is (texts[0] == texts[1])


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (of('"a\\nb"', "text/plain"), b"a\nb"),
        (of(' "a"', "text/csv; charset=utf-8"), b"a"),
        (of('{"a": 1}', "application/xml"), b'{"a": 1}'),
        (of('"a"'), b'"a"'),
        (of('"a"', None), b'"a"'),
        (sent_as_bytes('"a"', "text/plain"), b'"a"'),
    ],
)
def test_text_in_an_envelope_is_a_json_string_only_there(data: Data, content: bytes) -> None:
    assert unwrapped(data).content == content
