"""An index of all judged pairs: one narrow row each in a DuckDB file, to filter, count, sort and page them."""
