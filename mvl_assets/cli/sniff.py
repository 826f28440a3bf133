"""`mvl sources sniff` and `mvl sources add`: look at files of unknown form, propose their source, and declare it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mvl_assets.common.tables import as_json
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.project import write_own_entry
from mvl_assets.errors import MvlError
from mvl_assets.media.image import ImageError, inspect_image
from mvl_assets.readers.sample import EncodedImage, Sample
from mvl_assets.readers.sniffing.propose import MAX_NOTES, N_PREVIEWED, Proposal, sniff_folder

MAX_TEXT_CHARS = 160
FIELD_OPTIONS = ("question", "answer", "image")
BY_HAND_HINT = (
    "name the fields with --question, --answer and --image; or write a field map by hand: docs/add_a_source.md"
    " (sources/README.md in a project of your own) shows one for each form"
)


def _add_entry_options(command: Any) -> Any:
    """Add the options that say what files cannot."""
    for option in (
        click.option("--slug", metavar="SLUG", help="Name of the source; by default that of the folder."),
        click.option("--title", metavar="TEXT", help="Title of the source."),
        click.option("--category", metavar="CATEGORY", help="Category; `general` by default."),
        click.option("--group", type=click.Choice(["A", "B"]), help="A: used as it is (default), B: rewritten."),
        click.option("--family", metavar="FAMILY", help="Which prompt rewrites it; needed for group B."),
        click.option(
            "--format",
            "format",
            metavar="FORMAT",
            help="Native format; `records`: a field map.",
        ),
        click.option(
            "--question", metavar="FIELD", help="Field of the question; or a template, or a text for all rows."
        ),
        click.option("--answer", metavar="FIELD", help="Field of the answer, or a template such as '{a} ({b})'."),
        click.option("--image", metavar="FIELD", help="Field that holds or names the image, or a template."),
        click.option("--license", "license", metavar="LICENSE", help="Licence, such as cc-by-4.0."),
    ):
        command = option(command)
    return command


@click.command(name="sniff")
@click.argument("path", type=click.Path(path_type=Path))
@_add_entry_options
@click.option("--json", "json_", is_flag=True, help="As a JSON object.")
def sniff(path: Path, json_: bool, **options: str | None) -> None:
    """Look at the files in PATH and propose the source that reads them. Nothing is written."""
    proposal = _sniff(path, options)
    if json_:
        click.echo(as_json(_to_json(proposal)))
    else:
        _print_proposal(proposal)
    if proposal.attributes is None:
        raise MvlError(
            f"{proposal.root} is not understood",
            hint=BY_HAND_HINT,
        )


@click.command(name="add")
@click.argument("path", type=click.Path(path_type=Path))
@_add_entry_options
def add(path: Path, **options: str | None) -> None:
    """Look at the files in PATH and declare the source that reads them, in a file that you can edit."""
    proposal = _sniff(path, options)
    _print_proposal(proposal)
    if proposal.attributes is None or not proposal.samples:
        raise MvlError(
            f"no row of {proposal.root} can be read, so nothing was declared",
            hint=BY_HAND_HINT,
        )
    target = write_entry(proposal)
    slug = proposal.attributes["slug"]
    click.echo(f"\ndeclared in {target}; edit it there. `mvl run --source {slug}` reads it")


def _sniff(path: Path, options: dict[str, str | None]) -> Proposal:
    given = {key: value for key, value in options.items() if value is not None}
    fields = {key: given.pop(key) for key in FIELD_OPTIONS if key in given}
    return sniff_folder(path, given, fields)


def write_entry(proposal: Proposal) -> Path:
    """Write the proposed entry into a file of its own in the project's `sources/`, and return the file.

    Raises:
        MvlError: The slug is taken, or there is no project.
    """
    assert proposal.attributes is not None
    slug = str(proposal.attributes["slug"])
    return write_own_entry(
        "sources",
        slug,
        proposal.format_yaml(),
        is_taken=slug in load_catalog(),
        taken_error=MvlError(f"there is a source {slug!r} already", hint="give it another name with --slug"),
        preview_command="`mvl sources sniff`",
    )


def _print_proposal(proposal: Proposal) -> None:
    if proposal.attributes is not None:
        click.echo(proposal.format_yaml())
        at_least = "" if proposal.is_counted else "at least "
        click.echo(
            f"{at_least}{proposal.n_rows:,} rows; of the first {proposal.n_tried}, {len(proposal.samples)} are read"
        )
        for error, count in proposal.reject_counts.most_common():
            click.echo(f"  rejected: {count} x {error}")
        for row in proposal.rejects:
            click.echo(f"    {row.file}, row {row.position}: {row.message[:200]}")
        for sample in proposal.samples[:N_PREVIEWED]:
            _print_sample(sample)
    for note in proposal.notes[:MAX_NOTES]:
        click.echo(f"note: {note}")
    if len(proposal.notes) > MAX_NOTES:
        click.echo(f"note: and {len(proposal.notes) - MAX_NOTES} more, with --json")


def _print_sample(sample: Sample) -> None:
    click.echo(f"\n{sample.file}, row {sample.position}" + (f", id {sample.native_id}" if sample.native_id else ""))
    for image in sample.images:
        click.echo(f"  image: {_describe_image(image)}")
    if sample.video is not None:
        click.echo(f"  video: {sample.video.name[:80]}")
    for turn in sample.turns[:4]:
        text = " ".join(turn.value.split())
        click.echo(f"  {turn.role}: {text[:MAX_TEXT_CHARS]}{'…' if len(text) > MAX_TEXT_CHARS else ''}")
    if len(sample.turns) > 4:
        click.echo(f"  … {len(sample.turns)} turns")


def _describe_image(image: EncodedImage) -> str:
    try:
        data = image.read()
        properties = inspect_image(data)
    except (ImageError, OSError, ValueError) as error:
        return f"{image.name[:80]}: {error}"
    return f"{image.name[:80]}, {properties.format} {properties.width} x {properties.height}, {len(data):,} bytes"


def _to_json(proposal: Proposal) -> dict[str, Any]:
    return {
        "attributes": proposal.attributes,
        "rows": proposal.n_rows,
        "rows_are_counted": proposal.is_counted,
        "tried": proposal.n_tried,
        "read": len(proposal.samples),
        "rejects": dict(proposal.reject_counts),
        "samples": [
            {
                "file": sample.file,
                "position": sample.position,
                "id": sample.native_id,
                "images": [_describe_image(image) for image in sample.images],
                "turns": [[turn.role, turn.value] for turn in sample.turns],
            }
            for sample in proposal.samples[:N_PREVIEWED]
        ],
        "notes": proposal.notes,
    }
