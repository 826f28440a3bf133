"""`mvl view`: look at the judged pairs of the lake, and label them, in a browser."""

from __future__ import annotations

import getpass

import click

from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.holdout import compute_holdout_limit
from mvl_assets.stages import JUDGED
from mvl_assets.view.app import PageOptions, ViewApp
from mvl_assets.view.library import PairLibrary
from mvl_assets.view.server import HOST, build_server, open_socket


@click.command(name="view")
@click.option("--port", default=3001, show_default=True, type=click.IntRange(0, 65_535), help="0: any free one.")
@click.option(
    "--dagster", "dagster_url", default="http://127.0.0.1:3000", show_default=True, help="`mvl ui`, for links."
)
@click.option("--annotator", default=getpass.getuser, help="Whose labels they are; default: your user name.")
def command(port: int, dagster_url: str, annotator: str) -> None:
    """Look at judged pairs: image, original, rewrite, verdicts, lineage; filter, compare and label them."""
    if not dagster_url.startswith(("http://", "https://")):
        raise MvlError(f"--dagster {dagster_url!r} is no address", hint="for example http://127.0.0.1:3000")
    settings = load_settings()
    lake = Lake(settings.lake_root)
    if not lake.list_tables(JUDGED.name):
        raise MvlError("nothing is judged yet", hint="mvl run --until judged")
    holdout_limit = compute_holdout_limit(load_profile(settings.profile).holdout_fraction)
    library = PairLibrary(lake, settings.home / "view", holdout_limit)
    library.get_index()
    listener = open_socket(port)
    click.echo(f"http://{HOST}:{listener.getsockname()[1]}  (Ctrl-C stops it)")
    app = ViewApp(library, PageOptions(settings.lake_root, dagster_url, annotator))
    build_server(app).run(sockets=[listener])
