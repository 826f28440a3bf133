"""From a profile's model to the endpoints that serve it: remote addresses as they are, or the local server."""

from __future__ import annotations

import dataclasses

from mvl_assets.config.profile import ModelProfile
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.local_server.server import ensure_server, start_server_in_background
from mvl_assets.inference.local_server.server_spec import ServerSpec


def resolve_endpoints(model: ModelProfile) -> list[Endpoint]:
    """Return every endpoint of a model. Remote addresses are not contacted.

    Starts the local server where the profile has one, and waits until it answers.

    Raises:
        MvlError: It cannot be started.
    """
    if model.serve is not None:
        return [_ensure_local_endpoint(model)]
    if not model.base_urls:
        raise MvlError(f"the model {model.name} has neither base_urls nor serve in the profile")
    return [
        Endpoint(
            base_url=base_url,
            model=model.name,
            api_key_env=model.api_key_env,
            headers=model.headers,
            start_concurrency=min(8, model.concurrency),
            max_concurrency=model.concurrency,
            max_image_side=model.max_image_side,
        )
        for base_url in model.base_urls
    ]


def resolve_endpoint(model: ModelProfile) -> Endpoint:
    """Return the first endpoint of a model, for callers with few requests."""
    return resolve_endpoints(model)[0]


def warm_up(model: ModelProfile) -> None:
    """Start the model's local server, if it has one, without waiting: it loads while other work runs."""
    if model.serve is not None:
        start_server_in_background(ServerSpec.from_profile(model))


def _ensure_local_endpoint(model: ModelProfile) -> Endpoint:
    return dataclasses.replace(
        ensure_server(ServerSpec.from_profile(model)),
        start_concurrency=model.concurrency,
        max_concurrency=model.concurrency,
        max_image_side=model.max_image_side,
    )
