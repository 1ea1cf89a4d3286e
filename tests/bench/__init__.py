"""Benchmarks: measured side by side, quoted as ratios. They are not tests, and no test has a time in it."""
