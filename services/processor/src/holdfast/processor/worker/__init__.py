"""The processes and threads in which attempts are made."""
