"""The launched training process: loop, checkpoints, metrics, export."""
