"""Dagster's view of the stages: one thin module each. A body calls one plain function and describes what it did."""
