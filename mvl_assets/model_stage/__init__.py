"""What every stage that asks a model shares."""
