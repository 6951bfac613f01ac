"""A handler module with a mistake (``HOLDFAST_HANDLERS=raising_handlers:handlers``)."""

raise ZeroDivisionError
