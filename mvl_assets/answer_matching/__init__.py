"""Decides whether an answer is the reference answer, for judging and evaluation alike; by rules, without a model."""
