"""A source as a whole: which commit, whose files, and what a second run does."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.errors import MvlError
from mvl_assets.fetch import shared_transfers
from mvl_assets.fetch import source as source_module
from mvl_assets.fetch.errors import FetchError
from mvl_assets.fetch.lock import read_lockfile, write_lockfile
from mvl_assets.fetch.lookup import lock_sources
from mvl_assets.fetch.overview import (
    compute_source_state,
    describe_state,
    format_missing_hint,
    get_missing_reason,
    list_files,
)
from mvl_assets.fetch.source import MAX_CONCURRENT_DOWNLOADS, fetch_source, fetch_sources
from mvl_assets.fetch.state import FetchState, get_state_path, hold_source_lock, load_state, save_state
from tests.fetch.hub_server import Fault, HubServer, Repo, wait_until
from tests.fetch.sources import QUICK, noise, spec
from tests.patience import PATIENCE_S

FILES = {"a.json": noise(3000, 1), "b.json": b"[]", "images.zip": noise(9000, 2)}


@pytest.fixture
def data(hub: HubServer) -> Repo:
    hub.repos["lab/data"] = Repo(dict(FILES))
    return hub.repos["lab/data"]


def lock(*sources: SourceSpec) -> None:
    write_lockfile(lock_sources(sources, read_lockfile()))


def there(source: SourceSpec) -> dict[str, bytes]:
    return {name: (source.root / name).read_bytes() for name in list_files(source.root)}


def state_of(source: SourceSpec) -> str:
    return compute_source_state(source, read_lockfile().get_entry(source), load_state(source))


def test_locked_commit_is_fetched_although_the_hub_has_moved_on(data: Repo) -> None:
    lock(spec())
    commit = data.commit
    data.change({"a.json": b"[1]", "c.json": b"[]"})
    lines: list[str] = []
    state = fetch_source(spec(), log=lines.append, retry_policy=QUICK)
    assert there(spec()) == FILES
    assert (state.commit, state.locked, state.complete) == (commit, True, True)
    assert not any("unverified" in line for line in lines)
    assert lines[-1] == "demo: 3 files, 12.0 kB, all there"


def test_fetch_without_a_lock_takes_the_newest_commit_as_unverified(data: Repo) -> None:
    assert state_of(spec()) == "unverified"
    lines: list[str] = []
    state = fetch_source(spec(), log=lines.append, retry_policy=QUICK)
    assert lines[0] == f"demo: unverified: there is no lock, taking lab/data as it is now, at {data.commit[:12]}"
    assert not state.locked and "unverified" in describe_state(spec(), read_lockfile())


def test_second_fetch_requests_no_file(data: Repo, hub: HubServer) -> None:
    lock(spec())
    fetch_source(spec(), retry_policy=QUICK)
    asked = len(hub.asked)
    fetch_source(spec(), retry_policy=QUICK)
    assert len(hub.asked) == asked


def test_new_lock_fetches_changed_files_and_removes_obsolete_ones(data: Repo, hub: HubServer) -> None:
    lock(spec())
    fetch_source(spec(), retry_policy=QUICK)
    data.change({"a.json": None, "b.json": b"{}", "c.json": noise(2000, 5)})
    hub.sent.clear()
    lock(spec())
    fetch_source(spec(), retry_policy=QUICK)
    assert there(spec()) == {"b.json": b"{}", "c.json": noise(2000, 5), "images.zip": FILES["images.zip"]}
    assert hub.sent.keys() == {"b.json", "c.json"}


def test_source_state_follows_the_files(data: Repo, hub: HubServer) -> None:
    source = spec()
    lock(source)
    assert state_of(source) == "locked" and get_missing_reason(source) == "its files are missing"
    hub.faults["images.zip"] = Fault(times=9, status=404)
    with pytest.raises(FetchError):
        fetch_source(source, retry_policy=QUICK)
    assert state_of(source) == "fetching" and get_missing_reason(source) == "its fetch is not finished"
    hub.faults.clear()
    fetch_source(source, retry_policy=QUICK)
    assert state_of(source) == "fetched" and get_missing_reason(source) is None
    (source.root / "b.json").write_bytes(b"[2]")
    assert get_missing_reason(source) == "b.json is gone or was changed since it was fetched"
    fetch_source(source, retry_policy=QUICK)
    assert there(source) == FILES


def test_fetch_killed_between_a_file_and_its_state_is_unfinished(data: Repo) -> None:
    source = spec()
    lock(source)
    state = fetch_source(source, retry_policy=QUICK)
    save_state(source.slug, state.model_copy(update={"complete": False, "files": {}}))
    assert state_of(source) == "fetching" and get_missing_reason(source) == "its fetch is not finished"
    again = fetch_source(source, retry_policy=QUICK)
    assert again == state and state_of(source) == "fetched"


def test_user_managed_files_are_used_if_their_content_is_right(data: Repo, hub: HubServer) -> None:
    lock(spec())
    spec().root.mkdir(parents=True)
    (spec().root / "images.zip").write_bytes(FILES["images.zip"])
    assert state_of(spec()) == "local"
    state = fetch_source(spec(), retry_policy=QUICK)
    assert there(spec()) == FILES and hub.sent["images.zip"] == 0
    assert [name for name, file in state.files.items() if file.user_managed] == ["images.zip"]


def test_user_managed_file_is_never_overwritten_or_removed(data: Repo) -> None:
    lock(spec())
    spec().root.mkdir(parents=True)
    for name in ("images.zip", "b.json"):
        (spec().root / name).write_bytes(FILES[name])
    fetch_source(spec(), retry_policy=QUICK)
    for content, says in ((noise(9000, 8), "with other content"), (None, "other files")):
        data.change({"images.zip": content})
        lock(spec())
        with pytest.raises(FetchError, match=says):
            fetch_source(spec(), retry_policy=QUICK)
        assert there(spec()) == FILES


@pytest.mark.parametrize(("name", "says"), [("images.zip", "other content"), ("DEMO_DATA.json", "already holds other")])
def test_foreign_files_in_the_folder_are_left_alone(data: Repo, name: str, says: str) -> None:
    spec().root.mkdir(parents=True)
    (spec().root / name).write_bytes(b"mine")
    with pytest.raises(FetchError, match=says) as caught:
        fetch_source(spec(), retry_policy=QUICK)
    assert "away" in (caught.value.hint or "")
    assert there(spec()) == {name: b"mine"}


def test_file_shared_by_two_sources_is_fetched_once(data: Repo, hub: HubServer) -> None:
    one, two = spec("one"), spec("two", files=["images.zip", "b.json"])
    fetch_source(one, retry_policy=QUICK)
    hub.sent.clear()
    fetch_source(two, retry_policy=QUICK)
    assert there(two) == {name: FILES[name] for name in ("images.zip", "b.json")}
    assert hub.sent["images.zip"] == 0
    assert (one.root / "images.zip").stat().st_ino == (two.root / "images.zip").stat().st_ino


def test_files_of_a_config_folder_go_to_the_source_folder(hub: HubServer) -> None:
    table = noise(4000)
    hub.repos["lab/data"] = Repo({"ai2d(gpt4v)/train-0.parquet": table, "other/train-0.parquet": noise(4000, 9)})
    source = spec(config="ai2d(gpt4v)", format="llava_parquet")
    fetch_source(source, retry_policy=QUICK)
    assert there(source) == {"train-0.parquet": table}


def test_concurrent_downloads_are_limited(hub: HubServer) -> None:
    files = {f"{i}.json": noise(2000, i) for i in range(MAX_CONCURRENT_DOWNLOADS + 3)}
    hub.repos["lab/data"] = Repo(files)
    hub.faults["/cdn/"] = Fault(times=MAX_CONCURRENT_DOWNLOADS, hold=2000)
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(fetch_source, spec(), retry_policy=QUICK)
        wait_until(lambda: hub.at_once == MAX_CONCURRENT_DOWNLOADS)
        hub.release.set()
        fetching.result(PATIENCE_S)
    assert there(spec()) == files
    assert hub.most_at_once == MAX_CONCURRENT_DOWNLOADS


def fetch_in_thread(pool: ThreadPoolExecutor, sources: list[SourceSpec], failures: dict[str, MvlError]) -> Future[None]:
    def note_failure(source: SourceSpec, error: MvlError) -> None:
        failures[source.slug] = error

    return pool.submit(fetch_sources, sources, note_failure, retry_policy=QUICK)


def test_several_sources_are_fetched_at_once_within_one_limit_of_connections(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_transfers, "MAX_CONNECTIONS", 5)
    sources = []
    for n in range(4):
        hub.repos[f"lab/{n}"] = Repo({f"{n}-{i}.json": noise(2000, 10 * n + i) for i in range(3)})
        sources.append(spec(f"s{n}", repo=f"lab/{n}"))
    hub.faults["/cdn/"] = Fault(times=5, hold=2000)
    failures: dict[str, MvlError] = {}
    with ThreadPoolExecutor(1) as pool:
        fetching = fetch_in_thread(pool, sources, failures)
        wait_until(lambda: hub.at_once == 5)
        hub.release.set()
        fetching.result(PATIENCE_S)
    assert not failures and hub.most_at_once == 5
    for n, source in enumerate(sources):
        assert there(source) == hub.repos[f"lab/{n}"].files


def test_file_that_two_sources_share_is_downloaded_once_while_both_are_fetched(hub: HubServer) -> None:
    files = {"b.json": b"[]", "images.zip": FILES["images.zip"]}
    hub.repos["lab/data"] = Repo(dict(files))
    one, two = spec("one"), spec("two")
    lock(one, two)
    hub.faults["/cdn/"] = Fault(hold=4000)
    failures: dict[str, MvlError] = {}
    with ThreadPoolExecutor(1) as pool:
        fetching = fetch_in_thread(pool, [one, two], failures)
        assert hub.held.wait(PATIENCE_S)
        wait_until(lambda: all((source.root / "b.json").exists() for source in (one, two)))
        hub.release.set()
        fetching.result(PATIENCE_S)
    assert not failures and hub.sent["images.zip"] == len(files["images.zip"])
    assert there(one) == there(two) == files
    assert (one.root / "images.zip").stat().st_ino == (two.root / "images.zip").stat().st_ino


def test_one_failure_of_several_sources_is_reported_and_the_others_are_fetched(data: Repo, hub: HubServer) -> None:
    hub.repos["lab/other"] = Repo({"c.json": noise(2000, 7)})
    hub.faults["images.zip"] = Fault(times=9, status=404)
    failures: dict[str, MvlError] = {}
    with ThreadPoolExecutor(1) as pool:
        fetch_in_thread(pool, [spec(), spec("other", repo="lab/other")], failures).result(PATIENCE_S)
    assert failures.keys() == {"demo"} and "it is not at" in failures["demo"].message
    assert state_of(spec()) != "fetched" and state_of(spec("other", repo="lab/other")) == "fetched"


def test_state_is_written_rarely_when_a_write_takes_long(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["lab/data"] = Repo({f"{i}.json": noise(100, i) for i in range(30)})
    writes: list[int] = []
    clock = count()

    def save_slowly(slug: str, state: FetchState) -> None:
        writes.append(len(state.files))
        next(clock)
        save_state(slug, state)

    monkeypatch.setattr(source_module, "save_state", save_slowly)
    # Every look at the clock is a second later: a write takes as long as two files.
    monkeypatch.setattr(source_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(source_module, "SAVE_INTERVAL_S", 0.0)
    fetch_source(spec(), retry_policy=QUICK)
    assert writes[-1] == 30 and len(writes) < 15


def test_second_process_is_refused_while_a_source_is_fetched(data: Repo) -> None:
    with hold_source_lock("demo"), pytest.raises(FetchError, match="another process is fetching it"):
        fetch_source(spec(), retry_policy=QUICK)


def test_gated_source_says_which_terms_to_accept(data: Repo, hub: HubServer) -> None:
    data.gated = "auto"
    lock(spec())
    assert "gated: accept its terms" in describe_state(spec(), read_lockfile())
    with pytest.raises(FetchError, match=r"HTTP 401") as caught:
        fetch_source(spec(), retry_policy=QUICK)
    assert "accept its terms on the hub and set HF_TOKEN" in (caught.value.hint or "")


def test_source_without_a_home_or_with_its_own_path_is_not_fetched(home: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no public home is known") as caught:
        fetch_source(spec(repo=None))
    assert "put the source's files into" in (caught.value.hint or "")
    with pytest.raises(FetchError, match="a folder of your own"):
        fetch_source(spec(path=str(tmp_path)))


def test_the_hint_about_missing_files_offers_to_fetch_files_and_no_pages(home: Path) -> None:
    assert "`mvl sources fetch --source demo` fetches them" in format_missing_hint(spec())
    assert "`mvl sources fetch" in format_missing_hint(spec(repo=None, url="https://example.org/data.zip"))
    for page in ("https://example.org", "https://github.com/someone/data"):
        assert "`mvl sources fetch" not in format_missing_hint(spec(repo=None, url=page))


def test_damaged_state_file_raises_an_error_with_its_name(home: Path) -> None:
    get_state_path("demo").parent.mkdir(parents=True)
    get_state_path("demo").write_text("{", encoding="utf-8")
    with pytest.raises(MvlError, match=r"fetched/demo\.json is not a fetch state"):
        load_state(spec())
