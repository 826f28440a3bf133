"""One module per native format."""
