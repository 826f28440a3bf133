"""`mvl benchmarks add`: declares the items of a benchmark, so that training rows are compared with them."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import ValidationError

from mvl_assets.config.benchmarks import BenchmarkItems, load_benchmarks
from mvl_assets.config.project import write_own_entry
from mvl_assets.errors import MvlError
from mvl_assets.readers.sniffing.lmms_task import TaskProposal, sniff_task
from mvl_assets.readers.sniffing.propose import sniff_folder


@click.group(name="benchmarks")
def command() -> None:
    """Declare the items of benchmarks; `mvl sources --benchmarks` lists those that are declared."""


@command.command(name="add")
@click.argument("task_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--files",
    type=click.Path(path_type=Path, exists=True),
    help="The benchmark's data: the fields are taken from them instead of the task.",
)
@click.option("--dry-run", is_flag=True, help="Show the entry and write nothing.")
def add(task_file: Path, files: Path | None, dry_run: bool) -> None:
    """Declare the items that the lmms-eval task in TASK_FILE asks, in a file of `benchmarks/` that you can edit."""
    proposal = sniff_task(task_file)
    if files is not None:
        _take_fields_of_files(proposal, files)
    slug = str(proposal.attributes["slug"])
    try:
        BenchmarkItems(**proposal.attributes)
    except ValidationError as error:
        message = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise MvlError(f"{task_file} gives no valid entry: {message}", hint="write the entry by hand") from error
    click.echo(proposal.format_yaml())
    for note in proposal.notes:
        click.echo(f"note: {note}")
    if dry_run:
        return
    target = write_own_entry(
        "benchmarks",
        slug,
        proposal.format_yaml(),
        is_taken=slug in load_benchmarks(),
        taken_error=MvlError(f"the benchmark {slug!r} is declared already", hint="edit its entry instead"),
        preview_command="--dry-run",
    )
    click.echo(f"\ndeclared in {target}; edit it there")


def _take_fields_of_files(proposal: TaskProposal, files: Path) -> None:
    """Replace what was inferred from the task by what the data say.

    Raises:
        MvlError: They are not understood.
    """
    attributes = proposal.attributes
    sniffed = sniff_folder(files, {"title": attributes["title"]})
    if sniffed.attributes is None or not sniffed.samples:
        raise MvlError(f"no row of {files} can be read", hint=f"`mvl sources sniff {files}` says more")
    attributes.pop("records", None)
    attributes.update(
        {k: sniffed.attributes[k] for k in ("modality", "format", "path", "records") if k in sniffed.attributes}
    )
    proposal.notes = [f"{len(sniffed.samples)} of the first {sniffed.n_tried} rows of {files} are read", *sniffed.notes]
