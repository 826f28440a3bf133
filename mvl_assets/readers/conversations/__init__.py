"""Builds conversation turns from the content of native formats: captions, several answers, regions, templates."""
