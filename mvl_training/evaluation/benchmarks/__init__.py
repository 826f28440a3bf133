"""The paper's benchmarks, asked through lmms-eval."""
