"""Dagster helpers shared by definitions, components and the pipeline runner."""
