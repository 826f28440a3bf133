"""`mvl sources`: list the declared sources with their state, look up their files, and fetch them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import click

from mvl_assets.cli.sniff import add, sniff
from mvl_assets.common.tables import as_json, format_table, get_output_width
from mvl_assets.config.benchmarks import load_benchmarks
from mvl_assets.config.catalog import SourceSpec, get_source, list_all_categories, load_catalog, load_full_catalog
from mvl_assets.config.profile import load_profile
from mvl_assets.config.project import find_own_dir, load_project
from mvl_assets.config.project_files import describe_project
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.lock import Lockfile, read_lockfile, write_lockfile
from mvl_assets.fetch.overview import compute_source_state, describe_state, is_fetchable, measure_folder
from mvl_assets.fetch.progress import format_bytes
from mvl_assets.fetch.rules import format_manual_instructions
from mvl_assets.fetch.state import load_state
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.tombstones import load_tombstones
from mvl_assets.lake_queries.summaries import count_by_source

STATES = ("declared", "unverified", "locked", "fetching", "fetched", "local", "ingested", "purged")
COLUMNS = ("slug", "category", "group", "format", "license", "state", "rows", "rejects", "size")
NARROW_COLUMNS = ("slug", "category", "state", "rows", "rejects")
"""Columns for a terminal narrower than `MIN_WIDTH`."""
MIN_WIDTH = 120
STATE_MEANINGS = {
    "declared": "no public home is known: put its files into its folder",
    "unverified": "`mvl sources lock` has not looked it up",
    "locked": "`mvl sources fetch` fetches its files",
    "fetching": "`mvl sources fetch` goes on with it",
    "fetched": "`mvl run` reads its files",
    "local": "there are files of your own: `mvl run` reads them",
    "ingested": "its rows are in the lake",
    "purged": "`mvl purge allow source SLUG` takes it in again",
}


@click.group(name="sources", invoke_without_command=True)
@click.option("--category", type=click.Choice(list_all_categories()), help="Only this category.")
@click.option("--group", type=click.Choice(["A", "B", "C"]), help="Only this group of the paper.")
@click.option(
    "--license",
    "license_",
    metavar="WORD",
    help="Only licences that contain this word; `unknown` for sources without a known licence.",
)
@click.option("--state", type=click.Choice(STATES), help="Only sources in this state.")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be repeated.")
@click.option("--benchmarks", is_flag=True, help="The items of benchmarks instead of the sources.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list of objects.")
@click.pass_context
def command(
    context: click.Context,
    category: str | None,
    group: str | None,
    license_: str | None,
    state: str | None,
    sources: tuple[str, ...],
    benchmarks: bool,
    json_: bool,
) -> None:
    """List the declared sources with what is known about them and what is on disk and in the lake."""
    filters = (category, group, license_, state, sources, benchmarks)
    if context.invoked_subcommand is not None:
        if json_ or any(filters):
            raise click.UsageError(f"options of `{context.invoked_subcommand}` come after it")
        return
    lake = Lake(load_settings().lake_root)
    row_counts, reject_counts = count_by_source(lake)
    lock = read_lockfile()
    source_rows = [
        _build_source_row(
            spec, lock, row_counts[slug], reject_counts[slug], is_purged=load_tombstones(lake, slug).is_whole_source
        )
        for slug, spec in _resolve_specs(sources, benchmarks=benchmarks).items()
        if (category is None or spec.category == category)
        and (group is None or spec.group == group)
        and (license_ is None or license_.lower() in (spec.license or "unknown").lower())
    ]
    source_rows = [row for row in source_rows if state is None or row["state"].split(",")[0] == state]
    if json_:
        click.echo(as_json(source_rows))
        return
    if not source_rows:
        click.echo(
            "no source matches; `mvl sources` lists all of them"
            if any(filters)
            else "no source is declared: `mvl sources add PATH` writes one into"
            f" {find_own_dir('sources') or 'sources/ of a project'}"
        )
        return
    click.echo(describe_project())
    columns = COLUMNS if get_output_width() >= MIN_WIDTH else NARROW_COLUMNS
    cells = [[format_bytes(s[c]) if c == "size" and s[c] is not None else s[c] for c in columns] for s in source_rows]
    click.echo(format_table(f"{len(source_rows)} source{'s' if len(source_rows) != 1 else ''}", columns, cells))
    if any(filters):
        for note, same_note in groupby(sorted(source_rows, key=itemgetter("note")), key=itemgetter("note")):
            slugs = [row["slug"] for row in same_note]
            click.echo(f"{slugs[0] if len(slugs) == 1 else f'{len(slugs)} of them'}: {note}")
    else:
        states = {row["state"].split(",")[0] for row in source_rows}
        for state, meaning in STATE_MEANINGS.items():
            if state in states:
                click.echo(f"{state}: {meaning}")


@command.command(name="lock")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be repeated.")
@click.option("--category", type=click.Choice(list_all_categories()), help="Only this category.")
@click.option("--benchmarks", is_flag=True, help="The items of benchmarks instead of the sources.")
def update_lock_file(sources: tuple[str, ...], category: str | None, benchmarks: bool) -> None:
    """Look up commits, files, sizes and licences, and write them to the lock file."""
    from mvl_assets.fetch.lookup import lock_sources

    specs = _filter_specs(sources, category, benchmarks=benchmarks)
    lock = lock_sources(specs, read_lockfile(), click.echo)
    write_lockfile(lock)
    entries = [lock.sources[spec.slug] for spec in specs]
    n_locked = sum(bool(entry.files) for entry in entries)
    # What stopped most of them is what to mend first: without a network, that.
    main_reason = Counter(entry.reason for entry in entries).most_common(1)[0][0] if entries else None
    example = next((n for n, entry in enumerate(entries) if entry.reason == main_reason), 0)
    click.echo(f"{n_locked} of {len(specs)} sources locked in {load_settings().lock_file}")
    if specs and not n_locked:
        raise MvlError(
            f"no source could be looked up: {main_reason}",
            hint=entries[example].hint or format_manual_instructions(specs[example]),
        )


@command.command(name="fetch")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be repeated.")
@click.option("--category", type=click.Choice(list_all_categories()), help="Only this category.")
@click.option("--benchmarks", is_flag=True, help="The items of benchmarks instead of the sources.")
@click.option("--refetch", is_flag=True, help="Also fetch files that were removed after their ingest.")
def fetch_sources(sources: tuple[str, ...], category: str | None, benchmarks: bool, refetch: bool) -> None:
    """Fetch the sources' files; without --source, all sources of the profile that can be fetched.

    Several sources are fetched at a time; one that fails does not stop the others.
    """
    from mvl_assets.fetch.source import fetch_source
    from mvl_assets.fetch.source import fetch_sources as fetch_all

    specs = _filter_specs(sources, category, benchmarks=benchmarks)
    if benchmarks:
        specs = [s for s in specs if is_fetchable(s)]
    elif not sources:
        profile_sources = load_profile(load_settings().profile).sources
        specs = [s for s in specs if is_fetchable(s) and (profile_sources == "all" or s.slug in profile_sources)]
    specs = _exclude_purged(specs, are_explicit=bool(sources))
    if len(specs) == 1:
        fetch_source(specs[0], log=click.echo, refetch=refetch)
        return
    failed_slugs: list[str] = []

    def report_failure(spec: SourceSpec, error: MvlError) -> None:
        failed_slugs.append(spec.slug)
        click.echo(f"{error.message}\n  what to do: {error.hint or format_manual_instructions(spec)}", err=True)

    fetch_all(specs, report_failure, log=click.echo, refetch=refetch)
    if failed_slugs:
        raise MvlError(
            f"{len(failed_slugs)} of {len(specs)} sources were not fetched: {', '.join(sorted(failed_slugs))}",
            hint="the reason of each is printed above; the others were fetched",
        )


def _filter_specs(sources: tuple[str, ...], category: str | None, *, benchmarks: bool) -> list[SourceSpec]:
    specs = _resolve_specs(sources, benchmarks=benchmarks).values()
    return [spec for spec in specs if category is None or spec.category == category]


def _resolve_specs(sources: tuple[str, ...], *, benchmarks: bool) -> Mapping[str, SourceSpec]:
    return {slug: get_source(slug) for slug in sources} or (load_benchmarks() if benchmarks else load_catalog())


def _exclude_purged(specs: list[SourceSpec], *, are_explicit: bool) -> list[SourceSpec]:
    """Leave out sources that were purged as a whole; naming one explicitly is an error."""
    lake = Lake(load_settings().lake_root)
    purged_slugs = [spec.slug for spec in specs if load_tombstones(lake, spec.slug).is_whole_source]
    if purged_slugs and are_explicit:
        raise MvlError(
            f"{', '.join(purged_slugs)}: purged from {lake.root}, so not fetched",
            hint="; ".join(f"`mvl purge allow source {slug}`" for slug in purged_slugs) + " allows it again",
        )
    for slug in purged_slugs:
        click.echo(f"{slug}: purged, so not fetched; `mvl purge allow source {slug}` allows it again")
    return [spec for spec in specs if spec.slug not in purged_slugs]


def _build_source_row(
    spec: SourceSpec, lock: Lockfile, n_rows: int, n_rejects: int, *, is_purged: bool
) -> dict[str, Any]:
    fetch_state, entry = load_state(spec), lock.get_entry(spec)
    files_state = compute_source_state(spec, entry, fetch_state)
    display_state: str = "ingested" if n_rows and files_state != "fetching" else files_state
    note = describe_state(spec, lock, fetch_state)
    if is_purged:
        display_state, note = "purged", f"purged, `mvl purge allow source {spec.slug}` allows it again; {note}"
    elif files_state == "removed":
        display_state = "ingested, archives removed"
    if fetch_state is not None and files_state in ("fetched", "removed"):
        size: int | None = sum(file.size for file in fetch_state.files.values())
    else:
        size = measure_folder(spec.root)[1] if files_state == "local" else entry.total_bytes if entry else None
    return {
        "slug": spec.slug,
        "title": spec.title,
        "category": spec.category,
        "group": spec.group,
        "catalog": "project" if spec.slug in load_full_catalog().own_files else load_project().catalog,
        "in_paper": spec.slug in load_catalog() and load_full_catalog().is_in_paper(spec.slug),
        "modality": spec.modality,
        "format": spec.format,
        "family": spec.family,
        "license": spec.license,
        "card_license": entry.card_license if entry else None,
        "gated": entry.gated if entry else None,
        "expected": spec.expected.model_dump() if spec.expected else None,
        "state": display_state,
        "rows": n_rows,
        "rejects": n_rejects,
        "size": size,
        "commit": fetch_state.commit if fetch_state is not None else entry.commit if entry else None,
        "note": note,
    }


command.add_command(sniff)
command.add_command(add)
