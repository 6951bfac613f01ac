"""A handler's statements as parts of the span of its attempt."""

from holdfast.runtime.tracing import NO_SPAN, Kind, Span
from holdfast.storage.watching import Statement, Tell, operation_of, without_values

__all__ = ["MOST_STATEMENTS", "telling"]

MOST_STATEMENTS = 100
"""Of one attempt that are exported; the span of the attempt says how many more there were."""


def telling(span: Span) -> Tell | None:
    """What takes the statements of an attempt; ``None`` where nobody keeps its span."""
    return None if span is NO_SPAN else _Telling(span)


class _Telling:
    def __init__(self, span: Span) -> None:
        self._span = span
        self._count = 0

    def __call__(self, statement: Statement) -> None:
        self._count += 1
        if self._count > MOST_STATEMENTS:
            self._span.note({"holdfast.statements_left_out": self._count - MOST_STATEMENTS})
            return
        text = without_values(statement.text)
        operation = operation_of(text)
        self._span.child(
            operation or "statement",
            began_ns=statement.began_ns,
            ended_ns=statement.ended_ns,
            kind=Kind.CLIENT,
            attributes={
                "db.system.name": "postgresql",
                "db.operation.name": operation,
                "db.query.text": text,
                "db.operation.batch.size": statement.sets if statement.sets > 1 else None,
                "db.response.status_code": statement.error_code,
            },
            error_type=statement.error_type,
            is_innermost=True,
        )
