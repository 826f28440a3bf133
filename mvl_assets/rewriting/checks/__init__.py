"""Cheap checks of rewritten pairs, before a judge is asked: one module per idea, `table` lists them."""
