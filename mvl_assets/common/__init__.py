"""Small helpers that several packages share and that know nothing of the pipeline."""
