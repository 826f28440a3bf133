"""Ingest of a source's files into the lake: images, samples, rejects and the category tables."""
