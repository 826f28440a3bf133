"""Taking data out of the lake for good: purges with tombstones, and garbage collection."""
