"""What an operator does with events that were accepted. Knows nothing of HTTP."""
