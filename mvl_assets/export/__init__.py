"""Exporting mixtures in the formats other trainers read, with a dataset card."""
