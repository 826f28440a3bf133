"""Looking sources up where they live: the hub, or a plain address. What `mvl sources lock` writes down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.fetch import connection, hub
from mvl_assets.fetch.errors import HubDown, Unreachable
from mvl_assets.fetch.lock import Lock, LockedFile, LockedSource, declared
from mvl_assets.fetch.progress import Say, quiet, size_text
from mvl_assets.fetch.rules import choose, rule_of, without_a_file


def lock_sources(sources: Iterable[SourceSpec], old: Lock, say: Say = quiet) -> Lock:
    """`old` with these sources looked up anew. What cannot be looked up is listed with the reason and stops nothing."""
    repositories: dict[str, hub.Repository | Unreachable] = {}
    found = dict(old.sources)
    for source in sources:
        try:
            entry = look_up(source, repositories)
            but = f"; {entry.reason}" if entry.reason else ""
            say(f"{source.slug}: {len(entry.files)} files, {size_text(entry.size)}, {_where(entry)}{but}")
        except Unreachable as error:
            before = old.of(source) or LockedSource(declared=declared(source), license=source.license)
            entry = before.model_copy(update={"reason": error.message, "hint": error.hint})
            say(f"{source.slug}: {'kept as it was: ' if entry.files else ''}{error.message}")
        found[source.slug] = entry
    return Lock(sources=dict(sorted(found.items())))


def look_up(source: SourceSpec, repositories: dict[str, hub.Repository | Unreachable] | None = None) -> LockedSource:
    """The source as it is now at its public home. `repositories` remembers what several sources share.

    Raises `Unreachable`, also for a source without a public home; without a hint where only a person can supply it.
    """
    if source.hub is not None:
        return _on_the_hub(source, {} if repositories is None else repositories)
    if source.url is not None:
        return asyncio.run(_at_an_address(source, source.url))
    raise Unreachable("no public home is known")


def _on_the_hub(source: SourceSpec, repositories: dict[str, hub.Repository | Unreachable]) -> LockedSource:
    assert source.hub is not None
    name = source.hub.repo
    if name not in repositories:
        _give_up_without_a_hub(repositories)
        try:
            repositories[name] = hub.look_up(name)
        except Unreachable as error:
            repositories[name] = error
    repository = repositories[name]
    if isinstance(repository, Unreachable):
        raise Unreachable(repository.message, hint=repository.hint)
    by_path = {f.path: f for f in repository.files}
    chosen = choose(source, by_path)
    if not chosen:
        wanted = " or ".join(source.hub.files or rule_of(source).rows)
        of = f" for the config {source.hub.config}" if source.hub.config else ""
        raise Unreachable(
            f"none of the {len(by_path)} files of {name} is {wanted}{of}",
            hint="name the files with `files:` in the `hub` of its catalog entry",
        )
    absent = without_a_file(source, by_path)
    return LockedSource(
        declared=declared(source),
        reason=f"no file of {name} is called {' or '.join(absent)}" if absent else None,
        hint="correct `files:` in the `hub` of its catalog entry" if absent else None,
        commit=repository.commit,
        gated=repository.gated,
        license=source.license,
        card_license=repository.license,
        files=[_locked(place, by_path[path]) for place, path in sorted(chosen.items())],
    )


def _give_up_without_a_hub(repositories: dict[str, hub.Repository | Unreachable]) -> None:
    """A hub that could not be reached once and has answered nothing is not tried again for every repository."""
    down = next((found for found in repositories.values() if isinstance(found, HubDown)), None)
    if down is not None and not any(isinstance(found, hub.Repository) for found in repositories.values()):
        raise Unreachable(down.message, hint=down.hint)


def _locked(place: str, file: hub.RepoFile) -> LockedFile:
    return LockedFile(name=place, path=file.path, size=file.size, sha256=file.sha256, git_sha1=file.git_sha1)


async def _at_an_address(source: SourceSpec, url: str) -> LockedSource:
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    if not hub.is_safe(name) or "/" in name:
        raise Unreachable(f"{url} is the address of a page, not of a file")
    if urlsplit(url).scheme == "file":
        path = Path(unquote(urlsplit(url).path))
        if not path.is_file():
            raise Unreachable(f"there is no file {path}")
        size: int | None = path.stat().st_size
    else:
        size = await _size_at(url, name)
    file = LockedFile(name=name, path=url, size=size)
    return LockedSource(declared=declared(source), license=source.license, files=[file])


async def _size_at(url: str, name: str) -> int | None:
    async with connection.new_session() as session:
        try:
            async with connection.answer(session, url, {"Range": "bytes=0-0"}, {}) as got:
                if connection.is_page(got, name):
                    raise Unreachable(f"{url} is a web page, not a file")
                return connection.whole_size(got)
        except connection.TryAgain as fault:
            raise Unreachable(fault.reason, hint="run it again later") from fault


def _where(entry: LockedSource) -> str:
    gated = ", gated" if entry.gated else ""
    return f"{entry.declared.repo} at {entry.commit[:12]}{gated}" if entry.commit else str(entry.declared.url)
