"""An event's data as the model that a handler's first parameter names."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from holdfast.processor.handlers.outcomes import InvalidData

__all__ = ["valid_payload"]


def valid_payload(model: TypeAdapter[Any], data: Any) -> Any:
    """The model's value.

    Raises:
        InvalidData: the data does not fit.
    """
    try:
        return model.validate_python(data)
    except ValidationError as exc:
        raise InvalidData(exc) from None
