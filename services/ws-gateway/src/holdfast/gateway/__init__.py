"""Streams live updates to clients: targeted by topic, resumed by position, from Redis alone."""
