"""`mvl serve`: the local model servers that runs share."""

from __future__ import annotations

from dataclasses import asdict

import click

from mvl_assets.common.tables import as_json, format_table
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoints import resolve_endpoints
from mvl_assets.inference.fleet import Fleet
from mvl_assets.inference.local_server import server
from mvl_assets.orchestration import asset_keys


@click.group(name="serve")
def command() -> None:
    """Show, stop or start the local model servers."""


@command.command(name="status")
@click.option("--json", "json_", is_flag=True, help="As a JSON list.")
def show_status(json_: bool) -> None:
    """Show the servers of this machine: model, address, process, memory, idle time."""
    servers = [asdict(s) for s in server.list_servers()]
    if json_:
        click.echo(as_json(servers))
    elif servers:
        running = [s for s in server.list_servers() if s.state != "ended"]
        rows = [
            [
                s.name,
                s.state,
                s.base_url,
                s.pid,
                f"{s.memory_mib / 1024:.1f} GiB",
                f"{s.idle_s / 60:.0f} of {s.idle_timeout_s / 60:.0f} min",
            ]
            for s in running
        ]
        click.echo(format_table("local model servers", ["name", "state", "address", "pid", "memory", "idle"], rows))
    else:
        click.echo("no local model server is running; the next run that needs one starts it")


@command.command(name="stop")
@click.argument("name", required=False)
def stop(name: str | None) -> None:
    """Stop the server of the model NAME, or all of them."""
    stopped = server.stop_servers(name)
    if name is not None and not stopped:
        names = ", ".join(s.name for s in server.list_servers() if s.state != "ended")
        raise MvlError(f"no server {name!r} is running", hint=f"running: {names or 'none'}")
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@command.command(name="start")
def start() -> None:
    """Start the profile's local servers and wait until they answer."""
    for name in asset_keys.load_active_profile().model_names:
        model = asset_keys.load_active_profile().models[name]
        endpoints = resolve_endpoints(model)
        click.echo(f"{model.name}: {endpoints.name if isinstance(endpoints, Fleet) else endpoints[0].redacted_url}")
