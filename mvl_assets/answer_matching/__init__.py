"""Rule-based comparison of an answer with the reference answer, for judging and evaluation; asks no model."""
