"""Drawn images with true questions and answers."""
