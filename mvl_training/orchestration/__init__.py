"""Dagster assets of training, and their tables and plots in the UI."""
