"""What every stage that asks a model shares: building messages, re-asking, one loop that runs a stage, and its plan."""
