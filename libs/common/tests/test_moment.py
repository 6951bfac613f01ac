"""Timestamps: everything that RFC 3339 allows and both Python and PostgreSQL can hold."""

import pytest

from holdfast.domain.moment import read_moment


@pytest.mark.parametrize(
    ("text", "in_utc"),
    [
        ("2026-11-28T01:02:03Z", "2026-11-28T01:02:03+00:00"),
        ("2026-11-28t01:02:03.123456789+16:00", "2026-11-27T09:02:03.123456+00:00"),
        ("0001-01-02T00:00:00+23:59", "0001-01-01T00:01:00+00:00"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999+00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2017-01-01T08:59:60.5+09:00", "2017-01-01T00:00:00.500000+00:00"),
    ],
)
def test_a_timestamp_is_read_as_utc(text: str, in_utc: str) -> None:
    moment = read_moment(text)

    assert moment is not None
    assert moment.isoformat() == in_utc


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2026-11-28T01:02:03", "1700000000", "2026-11-28T01:02Z", "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:60Z", "2026-11-28T12:30:60Z", "2026-02-30T00:00:00Z",
        "2026-11-28T01:02:03+24:00", "٢٠٢٦-11-28T01:02:03Z", "2026-11-28T01:02:03Z\n",
    ],
)  # fmt: skip
def test_another_text_is_no_timestamp(text: str) -> None:
    assert read_moment(text) is None
