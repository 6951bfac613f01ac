"""A module of handlers that fails when it is imported."""

handlers = 1 // 0
