"""Choosing what to train on: screening, duplicates across sources, contamination against benchmarks, mixtures."""
