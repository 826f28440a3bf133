"""Probes of a judge: contrast pairs with known faults, to measure how many of the paper's faults it detects."""
