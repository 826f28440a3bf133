"""Queries of mixtures: their candidates, and how two of them differ."""
