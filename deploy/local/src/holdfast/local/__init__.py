"""The whole of Holdfast on one machine, for trying it out, for developing and for its tests.

Real servers from wheels (PostgreSQL and Valkey), the four services as processes of their own, and the pytest fixtures that
start and break them.
"""
