"""Parsers of file types (JSON, delimited text, Parquet, pickle) in bounded memory; they know nothing of sources."""
