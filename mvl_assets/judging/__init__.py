"""Judging: a Yes/No request per rewrite and criterion, the match with the reference answer, and the keep rule."""
