"""One client: its connection, session, token and what it says."""
