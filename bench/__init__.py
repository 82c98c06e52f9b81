"""Benchmarks: ratios measured in one run, because the machine is shared and absolute times wander."""
