"""Benchmarks: each prints a card, and its last line is the same as one JSON object."""
