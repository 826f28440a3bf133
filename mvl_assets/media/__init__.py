"""Decoding, checking and standardising images and video frames, and cutting them into tiles."""
