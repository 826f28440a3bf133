"""Rewriting: from a sample to its requests, from an answer to dialogues, and the rows of `rewritten/<category>`."""
