"""Judging: one Yes/No request per rewrite and criterion, agreement with the original key, and which rewrites stay."""
