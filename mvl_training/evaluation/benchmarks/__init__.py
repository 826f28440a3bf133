"""The paper's benchmarks and the synthetic ones, run by lmms-eval: declarations, runs and results."""
