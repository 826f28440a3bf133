"""The words that mark in a conversation's text where an image or a video belongs."""

from __future__ import annotations

IMAGE_MARKER = "<image>"
VIDEO_MARKER = "<video>"
