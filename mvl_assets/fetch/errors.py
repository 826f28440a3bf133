"""What can go wrong while files are fetched, as a person meets it."""

from __future__ import annotations

from mvl_assets.errors import MvlError, SourceError


class FetchError(SourceError):
    """A source's files cannot be had, or are not what was asked for. What has arrived of them stays."""


class FetchRefused(MvlError):
    """Nobody could say what a repository or an address holds: it is missing, gated, busy, or there is no network."""


class AddressNotAllowed(FetchRefused):
    """An address outside the public internet; fetching from there has to be allowed first."""


class HubUnavailable(FetchRefused):
    """The hub itself does not answer, whatever repository it is asked for."""
