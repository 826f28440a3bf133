"""From a profile's model to the endpoints that serve it: remote addresses as they are, or the local server."""

from __future__ import annotations

import dataclasses

from mvl_assets.config.profile import ModelProfile
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.local_server.server import ensure_server, start_in_background
from mvl_assets.inference.local_server.server_spec import ServeSpec


def endpoints_for(model: ModelProfile) -> list[Endpoint]:
    """Every endpoint of a model. Starts the local server where the profile has one, and waits until it answers.

    Raises `MvlError` when it cannot be started. Remote addresses are not contacted here.
    """
    if model.serve is not None:
        return [_local(model)]
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
            max_side=model.max_side,
        )
        for base_url in model.base_urls
    ]


def endpoint_for(model: ModelProfile) -> Endpoint:
    """The first endpoint of a model, for callers that ask a question or two."""
    return endpoints_for(model)[0]


def warm_up(model: ModelProfile) -> None:
    """Starts the model's local server, if it has one, without waiting: it loads while other work runs."""
    if model.serve is not None:
        start_in_background(ServeSpec.of(model))


def _local(model: ModelProfile) -> Endpoint:
    return dataclasses.replace(
        ensure_server(ServeSpec.of(model)),
        start_concurrency=model.concurrency,
        max_concurrency=model.concurrency,
        max_side=model.max_side,
    )
