"""The Lance tables: their schemas, how rows become durable, and the queries over them.

All Lance calls and all SQL live in this room. Nothing here knows what a prompt, a model or Dagster is.
"""
