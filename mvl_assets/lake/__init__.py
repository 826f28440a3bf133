"""The storage engine over Lance: schemas, durable writes, publishing, leases, lookup by key, compaction.

It stores prompts, models and ids as plain columns and does not interpret them; queries that do are in `lake_queries`.
Only these two packages call Lance and write SQL.
"""
