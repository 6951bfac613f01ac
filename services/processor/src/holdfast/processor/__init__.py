"""What a handler author writes against.

::

    from holdfast.processor import Backoff, Context, Handlers, Reject, Retry, Snooze

    handlers = Handlers()

    @handlers.on("com.acme.order.placed", name="charge-order")
    def charge(order: OrderPlaced, ctx: Context) -> dict: ...
"""

from importlib.metadata import version

from holdfast.domain.limits import Concurrency, Rate
from holdfast.domain.retry import Backoff
from holdfast.domain.window_options import Debounce, Unique
from holdfast.processor.handlers.around import Attempt
from holdfast.processor.handlers.bulk import BatchContext
from holdfast.processor.handlers.context import Context
from holdfast.processor.handlers.outcomes import Reject, Retry, Snooze
from holdfast.processor.handlers.registry import Handler, Handlers

__all__ = [
    "Attempt", "Backoff", "BatchContext", "Concurrency", "Context", "Debounce", "Handler", "Handlers", "Rate", "Reject",
    "Retry", "Snooze", "Unique", "VERSION",
]  # fmt: skip

VERSION = version("holdfast-processor")
