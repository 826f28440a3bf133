"""Errors of fetching that reach the user."""

from __future__ import annotations

from mvl_assets.errors import MvlError, SourceError


class FetchError(SourceError):
    """A source's files cannot be fetched or are not the right ones. What has arrived is kept."""


class FetchRefused(MvlError):
    """A repository or URL cannot be read: it is missing, gated, busy, or there is no network."""


class AddressNotAllowed(FetchRefused):
    """An address outside the public internet; fetching from it must be allowed explicitly."""


class HubUnavailable(FetchRefused):
    """The hub does not answer, whichever repository is asked for."""
