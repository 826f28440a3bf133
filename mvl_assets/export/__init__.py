"""Mixtures out, in the formats other trainers read, and the card that says what is in them."""
