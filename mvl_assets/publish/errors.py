"""Errors of publishing that reach the user."""

from __future__ import annotations

from mvl_assets.errors import MvlError


class PublishError(MvlError):
    """The hub refuses, or cannot be reached. What it has been sent is kept there, and not sent again."""
