"""Measurements of this machine: `python -m benchmarks` runs them and writes benchmarks/results/*.json."""
