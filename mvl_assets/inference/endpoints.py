"""From a profile's model to the endpoints that serve it: remote addresses as they are, or the local server."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from mvl_assets.config.profile import ModelProfile
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import BatchOptions, Endpoint, find_batch_folder
from mvl_assets.inference.fleet import DnsFleet, FileFleet, Fleet, FleetError, is_base_url
from mvl_assets.inference.local_server.server import ensure_server, start_server_in_background
from mvl_assets.inference.local_server.server_spec import ServerSpec


def resolve_endpoints(model: ModelProfile) -> list[Endpoint] | Fleet:
    """Return the endpoints of a model: a list that stays, or a fleet. Remote addresses are not contacted.

    Starts the local server where the profile has one, and waits until it answers.

    Raises:
        MvlError: It cannot be started, or an address is not a URL.
    """
    if model.serve is not None:
        return [_ensure_local_endpoint(model)]
    base_urls = [model.dns] if model.dns is not None else model.base_urls
    folders = [base_url for base_url in base_urls if find_batch_folder(base_url) is not None]
    if folders and model.mode != "batch":
        raise MvlError(
            f"the model {model.name} is asked by files in {folders[0]} only, which nobody answers at once",
            hint="give it `mode: batch`; `mvl try` needs a model with a server (--model)",
        )
    if not folders and not all(map(is_base_url, base_urls)):
        raise MvlError(
            f"the model {model.name} has an address that is not a URL of the form http://host:port/v1",
            hint="correct base_urls or dns in the profile",
        )
    endpoints = [_build_endpoint(model, base_url) for base_url in base_urls]
    if model.dns is not None:
        return DnsFleet(endpoints[0])
    if model.endpoints_file is not None:
        return FileFleet(_build_endpoint(model, ""), path=Path(model.endpoints_file).expanduser())
    if not endpoints:
        raise MvlError(f"the model {model.name} has neither endpoints nor serve in the profile")
    return endpoints


def estimate_endpoint_count(model: ModelProfile) -> int:
    """Return about how many endpoints a model has at this moment, at least 1. A server that is to be started counts."""
    endpoints = [] if model.serve is not None else resolve_endpoints(model)
    if isinstance(endpoints, Fleet):
        try:
            endpoints = asyncio.run(endpoints.list_endpoints())
        except FleetError:
            return 1
    return max(1, len(endpoints))


def warm_up(model: ModelProfile) -> None:
    """Start the model's local server, if it has one, without waiting: it loads while other work runs."""
    if model.serve is not None:
        start_server_in_background(ServerSpec.from_profile(model))


def _build_endpoint(model: ModelProfile, base_url: str) -> Endpoint:
    return Endpoint(
        base_url=base_url,
        model=model.name,
        api_key_env=model.api_key_env,
        headers=model.headers,
        start_concurrency=min(8, model.concurrency),
        max_concurrency=model.concurrency,
        max_image_side=model.max_image_side,
        # A folder can be asked nothing, and is read by vLLM.
        output_form="vllm" if model.output_form == "auto" and find_batch_folder(base_url) else model.output_form,
        gives_logprobs=model.logprobs,
        batch=_build_batch_options(model) if model.mode == "batch" else None,
    )


def _build_batch_options(model: ModelProfile) -> BatchOptions:
    batch = model.batch
    return BatchOptions(
        max_requests=batch.max_requests,
        max_bytes=int(batch.max_mb * 1e6),
        window=batch.window,
        max_open=batch.max_open,
        poll_interval_s=batch.poll_seconds,
        settle_s=min(60.0, 2 * batch.poll_seconds),
    )


def _ensure_local_endpoint(model: ModelProfile) -> Endpoint:
    return dataclasses.replace(
        ensure_server(ServerSpec.from_profile(model)),
        output_form="vllm" if model.output_form == "auto" else model.output_form,
        gives_logprobs=model.logprobs,
        start_concurrency=model.concurrency,
        max_concurrency=model.concurrency,
        max_image_side=model.max_image_side,
    )
