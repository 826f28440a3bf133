"""Builders of contrast pairs from the truth of a drawing: one module per kind of image."""
