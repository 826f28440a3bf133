"""The suite of held-out questions."""
