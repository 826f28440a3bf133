"""Dagster assets of training, and what they show in the UI."""
