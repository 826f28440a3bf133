"""`mvl export`: write the mixtures in the formats of trainers, or the judged pairs as one flat table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from mvl_assets.common.licenses import USES, Use
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings, validate_location
from mvl_assets.errors import MvlError
from mvl_assets.export.description import describe_export
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, choose_executor, export_stage
from mvl_assets.export.formats.registry import FORMATS, get_format
from mvl_assets.export.review import export_review, list_judged_categories
from mvl_assets.export.row_terms import build_mixture_filter, list_refused_rows
from mvl_assets.export.stale_exports import REVIEW
from mvl_assets.judging.agreement import describe_agreement
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter
from mvl_assets.lake_queries.removal.recorded_exports import record_export

_FORMAT_LINES = "\n\n".join(f"{name}: {format_.description}" for name, format_ in FORMATS.items())


# `mvl publish` has these, too.
IMAGES_OPTION = click.option(
    "--images",
    "image_form",
    type=click.Choice(["raw", "standard"]),
    default="raw",
    show_default=True,
    help="The bytes of the source's files, or upright RGB within 224 to 4,096 px and 7:1, as models get them.",
)
SHARD_MB_OPTION = click.option(
    "--shard-mb", type=click.IntRange(min=1), default=1000, show_default=True, help="Images in a shard, in MB."
)


def build_licence_option(default: Use) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option `--licence`: the use that the rows must permit."""
    return click.option(
        "--licence",
        "use",
        type=click.Choice(USES),
        default=default,
        show_default=True,
        help="Rows whose terms, and those of the model that rewrote them, permit any use, or research, or all rows.",
    )


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
@IMAGES_OPTION
@click.option(
    "--layout",
    type=click.Choice(["auto", "files", "shards"]),
    default="auto",
    show_default=True,
    help="Of JSON formats: one file and a folder of images, or shards of lines with a tar of images each.",
)
@SHARD_MB_OPTION
@build_licence_option("all")
@click.option(
    "--category", "categories", multiple=True, help="Of review: categories whose pairs are written; default: all."
)
@click.option("--rows", type=click.IntRange(min=1), help="Of review: draw this many pairs, the same ones each time.")
def command(
    format_name: str,
    stages: tuple[str, ...],
    out: str | None,
    image_form: str,
    layout: str,
    shard_mb: int,
    use: Use,
    categories: tuple[str, ...],
    rows: int | None,
) -> None:
    """Write the mixtures in FORMAT. What is there and still right is kept, so a killed export goes on.

    FORMAT may also be review: the judged pairs, kept and dropped, as flat Parquet with image, original, rewrite,
    verdicts and provenance.
    """
    if format_name == REVIEW and stages:
        raise click.UsageError("review has the judged pairs, which are of no stage: --category chooses among them")
    if format_name != REVIEW and (categories or rows):
        raise click.UsageError("--category and --rows are options of `mvl export review`")
    if format_name == REVIEW and use != "all":
        raise click.UsageError("--licence chooses rows of mixtures; pairs of review have their licence in a column")
    format_ = None if format_name == REVIEW else get_format(format_name)
    settings = load_settings()
    lake = Lake(settings.lake_root)
    folder_name = f"{format_.name if format_ else REVIEW}{'' if use == 'all' else f'-{use}'}"
    folder = ExportFolder(resolve_out(out) if out else f"{settings.export_root}/{folder_name}")
    profile = load_profile(settings.profile)
    stage_names = [] if format_ is None else list_stages(lake, stages)
    mixture_filter = build_mixture_filter(lake, profile, stage_names, use)
    options = ExportOptions(layout, image_form, shard_mb * 1_000_000, mixture_filter)  # type: ignore[arg-type]  # click has checked them
    if out:
        record_export(lake, folder.uri, [format_.name if format_ else REVIEW])
    executor = choose_executor(profile.executor, folder)
    if format_ is None:
        results = [export_review(lake, folder, _list_categories(lake, categories), rows, options, executor)]
    else:
        results = [export_stage(lake, stage, folder, format_, options, executor) for stage in stage_names]
        describe_export(lake, profile, folder, format_, options, describe_agreement(lake))
    for result in results:
        shards = f", {result.shards} shard{'s' if result.shards > 1 else ''}" if result.shards else ""
        click.echo(f"{result.name}: {result.rows:,} rows, {result.images:,} images ({image_form}){shards}")
    click.echo("".join(iter_refusal_lines(lake, stage_names, mixture_filter)) + f"in {folder}")


def iter_refusal_lines(lake: Lake, stages: Sequence[str], mixture_filter: MixtureFilter | None) -> Iterator[str]:
    """Yield a line for all rows that the filter leaves out for one reason."""
    if mixture_filter is not None:
        for refused in list_refused_rows(lake, stages, mixture_filter):
            yield f"left out: {refused.n_rows:,} rows: {refused.reason}\n"


def resolve_out(out: str) -> str:
    """Return `--out` as an absolute path or URI."""
    validate_location("--out", out)
    return out if "://" in out else str(Path(out).expanduser().absolute())


def _list_categories(lake: Lake, categories: tuple[str, ...]) -> list[str]:
    judged_categories = list_judged_categories(lake)
    unknown_categories = [category for category in categories if category not in judged_categories]
    if unknown_categories or not judged_categories:
        missing = f" in {', '.join(unknown_categories)}" if unknown_categories else ""
        judged = f"; judged are {', '.join(judged_categories)}" if judged_categories else ""
        raise MvlError(f"nothing is judged{missing}{judged}", hint="mvl run --until judged")
    return [category for category in judged_categories if not categories or category in categories]


def list_stages(lake: Lake, stages: tuple[str, ...]) -> list[str]:
    """Return the stages that have a mixture, or those that are named; raise `MvlError` if one has none."""
    present_stages = [stage for stage in TRAINING_STAGES if lake.get_table(f"mixture/{stage}").exists()]
    missing_stages = [stage for stage in stages if stage not in present_stages]
    if missing_stages or not present_stages:
        raise MvlError(f"there is no mixture {', '.join(missing_stages)}".strip(), hint="mvl run --until mixture")
    return [stage for stage in present_stages if not stages or stage in stages]
