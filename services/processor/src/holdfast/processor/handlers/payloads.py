"""An event's data as the model that a handler's first parameter names."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from holdfast.domain.errors import DataUnreadable, KeyMissing
from holdfast.domain.event import StoredEvent
from holdfast.processor.handlers.outcomes import DataLocked, InvalidData, UnreadableData

__all__ = ["valid_payload"]


def valid_payload(model: TypeAdapter[Any], event: StoredEvent) -> Any:
    """The model's value.

    The parsed data is checked, not its text. pydantic would take other texts: of ``datetime | str`` it makes a time of a JSON
    text and leaves a parsed string as it is, and a strict model takes times from the one and none from the other.

    Raises:
        InvalidData: the data does not fit.
        UnreadableData: it was sealed, and was changed since.
        DataLocked: it is sealed, and this process lacks the key.
    """
    try:
        data = event.data
    except DataUnreadable as exc:
        raise UnreadableData(str(exc)) from None
    except KeyMissing as exc:
        raise DataLocked(str(exc)) from None
    try:
        return model.validate_python(data)
    except ValidationError as exc:
        raise InvalidData(exc) from None
