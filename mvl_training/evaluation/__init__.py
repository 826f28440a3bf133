"""Asking checkpoints questions with known answers, and saying how far above chance they are.

Belongs here: choosing questions, asking them (of the local runner or of a server), scoring, the results table. Does
not: the model (`mvl_training.evaluation.runner`), HTTP (`mvl_assets.inference`), Dagster (`mvl_training.definitions`).
"""
