"""Training and evaluating the student on what the data lake holds."""
