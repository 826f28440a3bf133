"""Markers in a conversation's text at the position of an image or a video."""

from __future__ import annotations

IMAGE_MARKER = "<image>"
VIDEO_MARKER = "<video>"
