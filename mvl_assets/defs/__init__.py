"""Dagster assets, one thin module per stage: an asset calls one plain function and reports its metadata."""
