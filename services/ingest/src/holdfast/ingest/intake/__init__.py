"""What POST does with an event: read it, hold it against the limits, record it."""
