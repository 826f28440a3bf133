"""The pipeline driver behind `mvl run`: which steps to run, in which order and in which process."""
