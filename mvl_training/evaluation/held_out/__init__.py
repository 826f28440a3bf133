"""The suite `held_out`: questions of rows that no mixture may take, asked of every training stage's checkpoint."""
