"""Selection of the training data: screening, duplicates across sources, contamination against benchmarks, mixtures."""
