"""The student model: assembly, attention, cost, and the Hugging Face layout."""
