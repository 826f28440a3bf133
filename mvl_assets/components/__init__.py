"""The Dagster component of a source, and its checks."""
