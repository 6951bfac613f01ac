"""The frames of ``live.v1``, their limits and close codes."""
