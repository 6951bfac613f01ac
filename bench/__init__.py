"""Benchmarks: each stage of the path beside the limit of what it stands on, measured in the same run."""
