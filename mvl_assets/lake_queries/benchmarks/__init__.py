"""Queries about items of benchmarks: candidates, hits, and what training rows touch."""
