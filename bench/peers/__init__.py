"""Other job systems, measured beside Holdfast with the same PostgreSQL and Valkey."""
