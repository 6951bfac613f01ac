"""Everything that the gateway asks of Redis."""
