"""Publishing mixtures as a data set on the Hugging Face hub, so that a repeat sends the difference."""
