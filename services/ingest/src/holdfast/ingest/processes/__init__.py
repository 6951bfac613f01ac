"""The processes of the service: a first one that opens the port, and workers that serve it."""
