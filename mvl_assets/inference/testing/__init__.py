"""A fake model server and a logging proxy, for tests and benchmarks."""
