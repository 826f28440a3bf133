"""From mixture rows to packed batches."""
