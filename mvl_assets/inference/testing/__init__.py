"""Model servers for tests and benchmarks: a fake one with faults, and a proxy that journals requests."""
