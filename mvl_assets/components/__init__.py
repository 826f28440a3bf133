"""Dagster component types and resources."""
