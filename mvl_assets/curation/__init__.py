"""Choosing what to train on: duplicates across sources, contamination against benchmarks, and the mixtures."""
