"""The text of the member ``data``, exactly as it stands in a JSON text. Pure.

The scanner skips over everything else and makes no values. It is shown only what ``strict_json`` has parsed.
"""

from collections.abc import Sequence

import msgspec

__all__ = ["data_text", "data_texts"]


class _Envelope(msgspec.Struct):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_one = msgspec.json.Decoder(_Envelope).decode
_many = msgspec.json.Decoder(list[_Envelope]).decode


def data_text(body: bytes) -> bytes | None:
    """Of an object; ``None`` where it has no such member, or has what no event may have: halves of surrogate pairs, say."""
    try:
        return _text(_one(body))
    except (msgspec.MsgspecError, RecursionError):
        return None


def data_texts(body: bytes, count: int) -> Sequence[bytes | None]:
    """Of each of the ``count`` objects in an array; all ``None`` where one of them is none that an event is made of."""
    try:
        return [_text(each) for each in _many(body)]
    except (msgspec.MsgspecError, RecursionError):
        return [None] * count


def _text(envelope: _Envelope) -> bytes | None:
    return None if envelope.data is msgspec.UNSET else bytes(envelope.data)
