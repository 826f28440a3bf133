"""The half of each student family's adapter that needs torch: weights, the packed forward pass, exports."""
