"""Turns of a conversation from what native formats hold: captions, answers of several people, regions, templates."""
