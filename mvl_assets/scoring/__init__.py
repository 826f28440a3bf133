"""Scores of a sample of originals and rewrites, as the paper's authors measured what rewriting changes."""
