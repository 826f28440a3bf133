"""Parts of `scale.py`: how the cost of a row depends on how many rows there are."""
