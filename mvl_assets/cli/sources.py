"""`mvl sources`: every declared source, what is known of it and what was found; looking them up and fetching them."""

from __future__ import annotations

from typing import Any

import click

from mvl_assets.common.tables import as_json, show
from mvl_assets.config.catalog import CATEGORIES, SourceSpec, load_catalog, source_named
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import settings
from mvl_assets.errors import MachineError, MvlError
from mvl_assets.fetch.lock import Lock, read_lock, write_lock
from mvl_assets.fetch.overview import file_state, folder_size, is_fetchable, sentence
from mvl_assets.fetch.progress import size_text
from mvl_assets.fetch.rules import supply
from mvl_assets.fetch.state import load_state
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.summaries import counts_by_source
from mvl_assets.lake_queries.tombstones import purged_of

STATES = ("declared", "unverified", "locked", "fetching", "fetched", "files", "ingested", "purged")
COLUMNS = ("slug", "category", "group", "format", "license", "state", "rows", "rejects", "size")


@click.group(name="sources", invoke_without_command=True)
@click.option("--category", type=click.Choice(CATEGORIES), help="Only this category.")
@click.option("--group", type=click.Choice(["A", "B", "C"]), help="Only this group of the paper.")
@click.option("--license", "license_", metavar="WORD", help="Only licences with this word; `unknown` for none known.")
@click.option("--state", type=click.Choice(STATES), help="Only sources in this state.")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--json", "json_", is_flag=True, help="As a JSON list of objects.")
@click.pass_context
def command(
    context: click.Context,
    category: str | None,
    group: str | None,
    license_: str | None,
    state: str | None,
    sources: tuple[str, ...],
    json_: bool,
) -> None:
    """List the declared sources with what is known and what was found."""
    filters = (category, group, license_, state, sources)
    if context.invoked_subcommand is not None:
        if json_ or any(filters):
            raise click.UsageError(f"options of `{context.invoked_subcommand}` come after it")
        return
    lake = Lake(settings().lake_root)
    rows, rejects = counts_by_source(lake)
    lock = read_lock()
    listed = [
        _line(spec, lock, rows[slug], rejects[slug], is_purged=purged_of(lake, slug).whole)
        for slug, spec in _named(sources).items()
        if (category is None or spec.category == category)
        and (group is None or spec.group == group)
        and (license_ is None or license_.lower() in (spec.license or "unknown").lower())
    ]
    listed = [line for line in listed if state is None or line["state"].split(",")[0] == state]
    if json_:
        click.echo(as_json(listed))
        return
    if not listed:
        click.echo("no source is like that; `mvl sources` lists all")
        return
    table = [[size_text(s[c]) if c == "size" and s[c] is not None else s[c] for c in COLUMNS] for s in listed]
    click.echo(show(f"{len(listed)} sources", COLUMNS, table))
    if any(filters):
        for line in listed:
            click.echo(f"{line['slug']}: {line['note']}")
    else:
        click.echo("of each state, what it means and what to do: `mvl sources --state STATE`")


@command.command(name="lock")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--category", type=click.Choice(CATEGORIES), help="Only this category.")
def lock_command(sources: tuple[str, ...], category: str | None) -> None:
    """Look up commits, files, sizes and licences, and write them to the lock file."""
    from mvl_assets.fetch.lookup import lock_sources

    chosen = _chosen(sources, category)
    lock = lock_sources(chosen, read_lock(), click.echo)
    write_lock(lock)
    entries = [lock.sources[spec.slug] for spec in chosen]
    locked = sum(bool(entry.files) for entry in entries)
    click.echo(f"{locked} of {len(chosen)} sources locked in {settings().lock_file}")
    if chosen and not locked:
        raise MvlError(f"no source could be looked up: {entries[0].reason}", hint=entries[0].hint or supply(chosen[0]))


@command.command(name="fetch")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--category", type=click.Choice(CATEGORIES), help="Only this category.")
@click.option("--again", is_flag=True, help="Also what was removed after it was ingested.")
def fetch_command(sources: tuple[str, ...], category: str | None, again: bool) -> None:
    """Fetch the sources' files; without a choice, all of the profile that have a public home."""
    from mvl_assets.fetch.source import fetch_source

    chosen = _chosen(sources, category)
    if not sources:
        wanted = load_profile(settings().profile).sources
        chosen = [s for s in chosen if is_fetchable(s) and (wanted == "all" or s.slug in wanted)]
    chosen = _not_purged(chosen, named=bool(sources))
    failed: list[str] = []
    for spec in chosen:
        try:
            fetch_source(spec, say=click.echo, again=again)
        except MachineError:
            raise
        except MvlError as error:
            if len(chosen) == 1:
                raise
            failed.append(spec.slug)
            click.echo(f"{error.message}\n  what to do: {error.hint or supply(spec)}", err=True)
    if failed:
        raise MvlError(
            f"{len(failed)} of {len(chosen)} sources were not fetched: {', '.join(failed)}",
            hint="each has its reason above; the others are there",
        )


def _chosen(sources: tuple[str, ...], category: str | None) -> list[SourceSpec]:
    return [spec for spec in _named(sources).values() if category is None or spec.category == category]


def _named(sources: tuple[str, ...]) -> dict[str, SourceSpec]:
    return {slug: source_named(slug) for slug in sources} or load_catalog()


def _not_purged(chosen: list[SourceSpec], *, named: bool) -> list[SourceSpec]:
    """What was purged as a whole is passed over; to name it is an error."""
    lake = Lake(settings().lake_root)
    purged = [spec.slug for spec in chosen if purged_of(lake, spec.slug).whole]
    if purged and named:
        raise MvlError(
            f"{', '.join(purged)}: purged from {lake.root}, so nothing is fetched",
            hint="; ".join(f"`mvl purge allow source {slug}`" for slug in purged) + " lets it come back",
        )
    for slug in purged:
        click.echo(f"{slug}: purged, so not fetched; `mvl purge allow source {slug}` lets it come back")
    return [spec for spec in chosen if spec.slug not in purged]


def _line(spec: SourceSpec, lock: Lock, rows: int, rejects: int, *, is_purged: bool) -> dict[str, Any]:
    state, entry = load_state(spec), lock.of(spec)
    kind = file_state(spec, entry, state)
    shown: str = "ingested" if rows and kind != "fetching" else kind
    note = sentence(spec, lock, state)
    if is_purged:
        shown, note = "purged", f"purged, `mvl purge allow source {spec.slug}` lets it come back; {note}"
    elif kind == "removed":
        shown = "ingested, archives removed"
    if state is not None and kind in ("fetched", "removed"):
        size: int | None = sum(file.size for file in state.files.values())
    else:
        size = folder_size(spec.root)[1] if kind == "files" else entry.size if entry else None
    return {
        "slug": spec.slug,
        "title": spec.title,
        "category": spec.category,
        "group": spec.group,
        "outside_153": spec.outside_153,
        "modality": spec.modality,
        "format": spec.format,
        "family": spec.family,
        "license": spec.license,
        "card_license": entry.card_license if entry else None,
        "gated": entry.gated if entry else None,
        "expected": spec.expected.model_dump() if spec.expected else None,
        "state": shown,
        "rows": rows,
        "rejects": rejects,
        "size": size,
        "commit": state.commit if state is not None else entry.commit if entry else None,
        "note": note,
    }
