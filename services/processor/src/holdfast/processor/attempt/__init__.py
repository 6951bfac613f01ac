"""One attempt at one event, from its claim to its end."""
