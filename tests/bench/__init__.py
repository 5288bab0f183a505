"""Benchmarks: `python -m tests.bench` from a checkout. Each compares, in one run, with the bare thing that it wraps."""
