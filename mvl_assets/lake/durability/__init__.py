"""The storage engine's durability: repair, leases, locks, scratch files, compaction."""
