"""Rewriting: requests about samples, answers parsed into dialogues, and the rows of `rewritten/<category>`."""
