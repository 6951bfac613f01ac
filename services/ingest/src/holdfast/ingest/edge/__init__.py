"""The socket side of HTTP: a request is read whole, within limits and a deadline, before a thread is taken for it."""
