"""Looking sources up at their public home, the hub or a plain URL, for the lock file (`mvl sources lock`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.fetch import connection, hub
from mvl_assets.fetch.errors import FetchRefused, HubUnavailable
from mvl_assets.fetch.lock import LockedFile, LockedSource, Lockfile, build_declaration
from mvl_assets.fetch.progress import LogFn, format_bytes, log_nothing
from mvl_assets.fetch.rules import find_unmatched_patterns, get_source_format, select_files


def lock_sources(sources: Iterable[SourceSpec], previous: Lockfile, log: LogFn = log_nothing) -> Lockfile:
    """Return `previous` with these sources looked up again; those that cannot be are listed with the reason."""
    repositories: dict[str, hub.Repository | FetchRefused] = {}
    entries = dict(previous.sources)
    for source in sources:
        try:
            entry = resolve_source(source, repositories)
            reason_suffix = f"; {entry.reason}" if entry.reason else ""
            log(
                f"{source.slug}: {len(entry.files)} files, {format_bytes(entry.total_bytes)}, "
                f"{_format_location(entry)}{reason_suffix}"
            )
        except FetchRefused as error:
            previous_entry = previous.get_entry(source) or LockedSource(
                declaration=build_declaration(source), license=source.license
            )
            entry = previous_entry.model_copy(update={"reason": error.message, "hint": error.hint})
            log(f"{source.slug}: {'kept as it was: ' if entry.files else ''}{error.message}")
        entries[source.slug] = entry
    return Lockfile(sources=dict(sorted(entries.items())))


def resolve_source(
    source: SourceSpec, repositories: dict[str, hub.Repository | FetchRefused] | None = None
) -> LockedSource:
    """Return the source as it is now at its public home.

    Args:
        source: The source.
        repositories: Cache of repositories that several sources share; it is filled here.

    Raises:
        FetchRefused: The source cannot be looked up. Without a hint, only the user can supply the files.
    """
    if source.hub is not None:
        return _resolve_hub_source(source, {} if repositories is None else repositories)
    if source.url is not None:
        return asyncio.run(_resolve_url_source(source, source.url))
    raise FetchRefused("no public home is known")


def _resolve_hub_source(source: SourceSpec, repositories: dict[str, hub.Repository | FetchRefused]) -> LockedSource:
    assert source.hub is not None
    name = source.hub.repo
    if name not in repositories:
        _fail_fast_offline(repositories)
        try:
            repositories[name] = hub.get_repository(name)
        except FetchRefused as error:
            repositories[name] = error
    repository = repositories[name]
    if isinstance(repository, FetchRefused):
        raise FetchRefused(repository.message, hint=repository.hint)
    by_path = {f.path: f for f in repository.files}
    selected = select_files(source, by_path)
    if not selected:
        patterns = " or ".join(source.hub.files or get_source_format(source).row_files)
        config_suffix = f" for the config {source.hub.config}" if source.hub.config else ""
        raise FetchRefused(
            f"none of the {len(by_path)} files of {name} is {patterns}{config_suffix}",
            hint="name the files with `files:` in the `hub` of its catalog entry",
        )
    unmatched = find_unmatched_patterns(source, by_path)
    return LockedSource(
        declaration=build_declaration(source),
        reason=f"no file of {name} is called {' or '.join(unmatched)}" if unmatched else None,
        hint="correct `files:` in the `hub` of its catalog entry" if unmatched else None,
        commit=repository.commit,
        gated=repository.gated,
        license=source.license,
        card_license=repository.license,
        files=[_build_locked_file(target_name, by_path[path]) for target_name, path in sorted(selected.items())],
    )


def _fail_fast_offline(repositories: dict[str, hub.Repository | FetchRefused]) -> None:
    """Raise the hub's earlier error if it has never answered, instead of trying again for every repository."""
    hub_error = next((result for result in repositories.values() if isinstance(result, HubUnavailable)), None)
    if hub_error is not None and not any(isinstance(result, hub.Repository) for result in repositories.values()):
        raise FetchRefused(hub_error.message, hint=hub_error.hint)


def _build_locked_file(name: str, file: hub.RepoFile) -> LockedFile:
    return LockedFile(name=name, path=file.path, size=file.size, sha256=file.sha256, git_sha1=file.git_sha1)


async def _resolve_url_source(source: SourceSpec, url: str) -> LockedSource:
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    if not hub.is_safe_path(name) or "/" in name:
        raise FetchRefused(f"{url} is the URL of a page, not of a file")
    if urlsplit(url).scheme == "file":
        path = Path(unquote(urlsplit(url).path))
        if not path.is_file():
            raise FetchRefused(f"there is no file {path}")
        size: int | None = path.stat().st_size
    else:
        size = await _fetch_size(url, name)
    file = LockedFile(name=name, path=url, size=size)
    return LockedSource(declaration=build_declaration(source), license=source.license, files=[file])


async def _fetch_size(url: str, name: str) -> int | None:
    async with connection.create_session() as session:
        try:
            async with connection.open_response(session, url, {"Range": "bytes=0-0"}, {}) as response:
                if connection.is_html(response, name):
                    raise FetchRefused(f"{url} is a web page, not a file")
                return connection.get_total_size(response)
        except connection.TransientError as fault:
            raise FetchRefused(fault.reason, hint="run it again later") from fault


def _format_location(entry: LockedSource) -> str:
    gated = ", gated" if entry.gated else ""
    return f"{entry.declaration.repo} at {entry.commit[:12]}{gated}" if entry.commit else str(entry.declaration.url)
