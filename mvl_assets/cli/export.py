"""`mvl export`: write the mixtures in the formats of trainers, or the judged pairs as one flat table."""

from __future__ import annotations

from pathlib import Path

import click

from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings, validate_location
from mvl_assets.errors import MvlError
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, choose_executor, export_stage
from mvl_assets.export.formats.registry import FORMATS, get_format
from mvl_assets.lake.lake import Lake

_FORMAT_LINES = "\n\n".join(f"{name}: {format_.description}" for name, format_ in FORMATS.items())


@click.command(name="export", epilog=f"Formats:\n\n{_FORMAT_LINES}")
@click.argument("format_name", metavar="FORMAT")
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(TRAINING_STAGES),
    help="Mixtures to write; default: all that are there.",
)
@click.option("--out", metavar="DIR", help="A folder, or a URI of an object store; default: $MVL_EXPORT/FORMAT.")
@click.option(
    "--images",
    "image_form",
    type=click.Choice(["raw", "standard"]),
    default="raw",
    show_default=True,
    help="The bytes of the source's files, or upright RGB within 224 to 4,096 px and 7:1, as models get them.",
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "files", "shards"]),
    default="auto",
    show_default=True,
    help="Of JSON formats: one file and a folder of images, or shards of lines with a tar of images each.",
)
@click.option(
    "--shard-mb", type=click.IntRange(min=1), default=1000, show_default=True, help="Images in a shard, in MB."
)
def command(
    format_name: str, stages: tuple[str, ...], out: str | None, image_form: str, layout: str, shard_mb: int
) -> None:
    """Write the mixtures in FORMAT. What is there and still right is kept, so a killed export goes on."""
    format_ = get_format(format_name)
    settings = load_settings()
    lake = Lake(settings.lake_root)
    folder = ExportFolder(_resolve_out(out) if out else f"{settings.export_root}/{format_.name}")
    options = ExportOptions(layout, image_form, shard_mb * 1_000_000)  # type: ignore[arg-type]  # click has checked them
    executor = choose_executor(load_profile(settings.profile).executor, folder)
    for stage in _list_stages(lake, stages):
        result = export_stage(lake, stage, folder, format_, options, executor)
        shards = f", {result.shards} shards" if result.shards else ""
        click.echo(f"{stage}: {result.rows:,} rows, {result.images:,} images ({image_form}){shards}")
    click.echo(f"in {folder}")


def _resolve_out(out: str) -> str:
    validate_location("--out", out)
    return out if "://" in out else str(Path(out).expanduser().absolute())


def _list_stages(lake: Lake, stages: tuple[str, ...]) -> list[str]:
    present_stages = [stage for stage in TRAINING_STAGES if lake.get_table(f"mixture/{stage}").exists()]
    missing_stages = [stage for stage in stages if stage not in present_stages]
    if missing_stages or not present_stages:
        raise MvlError(f"there is no mixture {', '.join(missing_stages)}".strip(), hint="mvl run --until mixture")
    return [stage for stage in present_stages if not stages or stage in stages]
