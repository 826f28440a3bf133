"""`mvl export`: write the mixtures in the formats of trainers, or the judged pairs as viewers open them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from mvl_assets.common.licenses import USES, Use
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings, validate_location
from mvl_assets.errors import MvlError
from mvl_assets.execution.executor import Executor
from mvl_assets.export.description import describe_export
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import ExportOptions, ExportResult, choose_executor, export_stage
from mvl_assets.export.fiftyone import FIFTYONE, export_fiftyone
from mvl_assets.export.formats.registry import FORMATS, get_format
from mvl_assets.export.review import export_review, list_judged_categories
from mvl_assets.export.row_terms import build_mixture_filter, list_refused_rows
from mvl_assets.export.stale_exports import REVIEW
from mvl_assets.judging.agreement import describe_agreement
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.mixtures.mixture_filter import MixtureFilter
from mvl_assets.lake_queries.removal.recorded_exports import record_export

ATLAS = "atlas"
PAIR_FORMATS = {
    REVIEW: "judged pairs as flat Parquet: image, original, rewrite, verdicts, provenance",
    ATLAS: "the same for Embedding Atlas, with the command that opens it",
    FIFTYONE: "judged pairs that have an image as a FiftyOneDataset, with the lines that open it",
}
_FORMAT_LINES = "\n\n".join(
    f"{name}: {description}"
    for name, description in ({name: format_.description for name, format_ in FORMATS.items()} | PAIR_FORMATS).items()
)


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
    "--category", "categories", multiple=True, help="Of judged pairs: categories that are written; default: all."
)
@click.option(
    "--rows", type=click.IntRange(min=1), help="Of judged pairs: draw this many of them, the same ones each time."
)
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

    FORMAT may also be review, atlas or fiftyone: the judged pairs, kept and dropped, with image, original, rewrite,
    verdicts and provenance, as these viewers open them.
    """
    is_of_pairs = format_name in PAIR_FORMATS
    if is_of_pairs and stages:
        raise click.UsageError(
            f"{format_name} has the judged pairs, which are of no stage: --category chooses among them"
        )
    if not is_of_pairs and (categories or rows):
        raise click.UsageError(f"--category and --rows are options of `mvl export {'|'.join(PAIR_FORMATS)}`")
    if is_of_pairs and use != "all":
        raise click.UsageError("--licence chooses rows of mixtures; judged pairs have their licence in a column")
    format_ = None if is_of_pairs else get_format(format_name)
    settings = load_settings()
    lake = Lake(settings.lake_root)
    name = format_.name if format_ else format_name
    folder = ExportFolder(
        resolve_out(out) if out else f"{settings.export_root}/{name}{'' if use == 'all' else f'-{use}'}"
    )
    profile = load_profile(settings.profile)
    stage_names = [] if format_ is None else list_stages(lake, stages)
    mixture_filter = build_mixture_filter(lake, profile, stage_names, use)
    options = ExportOptions(layout, image_form, shard_mb * 1_000_000, mixture_filter)  # type: ignore[arg-type]  # click has checked them
    if out:
        record_export(lake, folder.uri, [name])
    executor = choose_executor(profile.executor, folder)
    if format_ is None:
        chosen = _list_categories(lake, categories)
        result, last_lines = _export_pairs(lake, folder, format_name, chosen, rows, options, executor)
        results = [result]
    else:
        results = [export_stage(lake, stage, folder, format_, options, executor) for stage in stage_names]
        describe_export(lake, profile, folder, format_, options, describe_agreement(lake))
        last_lines = []
    for result in results:
        shards = f", {result.shards} shard{'s' if result.shards > 1 else ''}" if result.shards else ""
        click.echo(f"{result.name}: {result.rows:,} rows, {result.images:,} images ({image_form}){shards}")
    click.echo("".join(iter_refusal_lines(lake, stage_names, mixture_filter)) + f"in {folder}")
    for line in last_lines:
        click.echo(line)


def _export_pairs(
    lake: Lake,
    folder: ExportFolder,
    format_name: str,
    categories: Sequence[str],
    rows: int | None,
    options: ExportOptions,
    executor: Executor,
) -> tuple[ExportResult, list[str]]:
    """Write judged pairs; return the result, and lines that say what is left out and how to open it."""
    if format_name != FIFTYONE:
        result = export_review(lake, folder, categories, rows, options, executor)
        files = f"{folder}/{REVIEW}/*.parquet"
        return result, [f"embedding-atlas {files} --text question --image image"] if format_name == ATLAS else []
    result, n_left_out = export_fiftyone(lake, folder, categories, rows, options.image_form)
    lines = [f"left out: {n_left_out:,} pairs without an image"] if n_left_out else []
    opening = f"fo.Dataset.from_dir({str(folder)!r}, dataset_type=fo.types.FiftyOneDataset)"
    return result, [*lines, "import fiftyone as fo", f"fo.launch_app({opening}).wait()"]


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
