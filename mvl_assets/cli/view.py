"""`mvl view`: look at the judged pairs of the lake, and label them, in a browser."""

from __future__ import annotations

import getpass
import importlib
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import click

from mvl_assets.common.installation import build_install_hint
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.holdout import compute_holdout_limit
from mvl_assets.stages import JUDGED, REWRITTEN
from mvl_assets.view.app import PageOptions, ViewApp
from mvl_assets.view.library import PairLibrary
from mvl_assets.view.server import HOST, build_server, open_socket
from mvl_assets.view.standalone import MAX_ROWS, write_standalone_page
from mvl_assets.view.state import DEFAULT_PORT, parse_state
from mvl_assets.view.training_page import TrainingOverview

TRAINING_MODULE = "mvl_training.studies.training_overview"
"""Reads trainings and studies; needs both packages on one machine."""


@click.command(name="view")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65_535), help="0: any free one."
)
@click.option(
    "--dagster", "dagster_url", default="http://127.0.0.1:3000", show_default=True, help="`mvl ui`, for links."
)
@click.option("--annotator", default=getpass.getuser, help="Whose labels they are; default: your user name.")
@click.option(
    "--export", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to send instead of serving."
)
@click.option("--query", default="", help="Of --export: the address of a page, or what follows its question mark.")
@click.option(
    "--rows", type=click.IntRange(1, MAX_ROWS), default=MAX_ROWS, show_default=True, help="Of --export: pairs at most."
)
def command(port: int, dagster_url: str, annotator: str, path: Path | None, query: str, rows: int) -> None:
    """Look at judged pairs: image, original, rewrite, verdicts, lineage; filter, compare and label them."""
    if not dagster_url.startswith(("http://", "https://")):
        raise MvlError(f"--dagster {dagster_url!r} is no address", hint="for example http://127.0.0.1:3000")
    settings = load_settings()
    lake = Lake(settings.lake_root)
    if not lake.list_tables(JUDGED.name) and not lake.list_tables(REWRITTEN.name):
        raise MvlError("nothing is rewritten yet", hint="mvl run --until judged")
    holdout_limit = compute_holdout_limit(load_profile(settings.profile).holdout_fraction)
    library = PairLibrary(lake, settings.home / "view", holdout_limit)
    if path is not None:
        state = parse_state(parse_qsl(urlsplit(query).query or query.lstrip("?")))
        n_pairs = write_standalone_page(path, library, library.require_index(), state, rows)
        click.echo(f"{path}: {n_pairs} pairs, {path.stat().st_size / 1e6:.1f} MB")
        return
    library.get_index()
    listener = open_socket(port)
    click.echo(f"http://{HOST}:{listener.getsockname()[1]}  (Ctrl-C stops it)")
    options = PageOptions(settings.lake_root, dagster_url, annotator, partial(_read_training, lake))
    app = ViewApp(library, options)
    build_server(app).run(sockets=[listener])


def _read_training(lake: Lake) -> TrainingOverview:
    # Imported when the page is opened: it takes seconds, and most people look at pairs.
    try:
        module = importlib.import_module(TRAINING_MODULE)
    except ImportError as error:
        raise MvlError("what trains models is not installed here", hint=build_install_hint("train")) from error
    overview: TrainingOverview = module.read_training_overview(lake.get_pipeline_lake())
    return overview
