"""The edges between the groups of the asset graph, as in the README's diagram."""

from __future__ import annotations

EDGES = {
    ("raw", "category"),
    ("category", "rewritten"),
    ("prompts", "rewritten"),
    ("rewritten", "judged"),
    ("prompts", "judged"),
    ("rewritten", "scored"),
    ("prompts", "scored"),
    ("benchmarks", "curation"),
    ("category", "curation"),
    ("category", "mixture"),
    ("judged", "mixture"),
    ("curation", "mixture"),
    ("mixture", "export"),
    ("mixture", "pack_plan"),
    ("pack_plan", "packed_rows"),
    ("packed_rows", "checkpoint"),
    ("checkpoint", "checkpoint"),
    ("checkpoint", "evaluation"),
}

SCORES_EDGES = {("category", "scores"), ("scores", "mixture")}
"""Those of a profile that names scores of others."""
