"""The formats of exports: each is a small writer of the same rows."""
