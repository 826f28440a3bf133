from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvl_assets.common.free_port import find_free_port
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.lock import Lockfile, read_lockfile, write_lockfile
from mvl_assets.fetch.lookup import lock_sources
from tests.fetch.hub_server import Fault, HubServer, Repo, git_sha1
from tests.fetch.sources import noise, spec

ROWS, TAR = b'[{"id": 1}]', noise(5000)


@pytest.fixture
def data(hub: HubServer) -> Repo:
    hub.repos["lab/data"] = Repo({"rows.json": ROWS, "images.tar.gz": TAR, "README.md": b"#"}, license="mit")
    return hub.repos["lab/data"]


def locked(*sources: object, old: Lockfile | None = None) -> Lockfile:
    write_lockfile(lock_sources(sources, old or Lockfile()))  # type: ignore[arg-type]
    return read_lockfile()


def test_lock_records_commit_files_sizes_checksums_and_both_licences(data: Repo) -> None:
    entry = locked(spec(license="cc0")).get_entry(spec(license="cc0"))
    assert entry is not None
    assert (entry.commit, entry.license, entry.card_license, entry.gated) == (data.commit, "cc0", "mit", None)
    tar, rows = entry.files
    assert (tar.name, tar.size, len(tar.sha256 or ""), tar.git_sha1) == ("images.tar.gz", 5000, 64, None)
    assert (rows.name, rows.size, rows.sha256, rows.git_sha1) == ("rows.json", len(ROWS), None, git_sha1(ROWS))
    assert entry.total_bytes == 5000 + len(ROWS)


def test_lock_of_an_unchanged_hub_has_the_same_bytes(data: Repo) -> None:
    data.license = ["mit", "cc-by-4.0"]
    sources = [spec(slug) for slug in ("zebra", "ant", "demo")]
    locked(*sources)
    first = load_settings().lock_file.read_bytes()
    locked(*reversed(sources))
    assert load_settings().lock_file.read_bytes() == first
    assert list(json.loads(first)["sources"]) == ["ant", "demo", "zebra"]
    assert json.loads(first)["sources"]["ant"]["card_license"] == "mit, cc-by-4.0"


def test_repository_shared_by_sources_is_requested_once(data: Repo, hub: HubServer) -> None:
    locked(spec("one"), spec("two", files=["rows.json"]), spec("three"))
    assert len(hub.requests_of("/api/")) == 1


def test_locking_one_source_keeps_the_other_entries(data: Repo) -> None:
    old = locked(spec("one"), spec("two"))
    data.change({"rows.json": b"[]"})
    new = locked(spec("two"), old=old)
    assert new.sources["one"] == old.sources["one"]
    assert new.sources["two"].commit == data.commit != old.sources["two"].commit


@pytest.mark.parametrize(
    ("repo", "fault", "reason", "hint"),
    [
        (None, None, "is missing, private or gated (HTTP 401)", "HF_TOKEN"),
        (Repo({"rows.json": ROWS}, private=True), None, "is missing, private or gated (HTTP 401)", "accept its terms"),
        (Repo({"a.txt": b""}), None, "none of the 1 files of lab/data is *.json or *.jsonl", "`files:`"),
        (Repo(), Fault(times=9, status=404), "does not exist (HTTP 404)", "another copy"),
        (Repo(), Fault(times=9, status=403), "is not accessible with this token (HTTP 403)", "accept its terms"),
        (
            Repo(),
            Fault(times=9, status=403, headers={"X-Error-Code": "GatedRepo"}),
            "is gated (HTTP 403)",
            "/datasets/lab/data and set HF_TOKEN",
        ),
        (
            Repo(),
            Fault(times=9, status=403, headers={"X-Error-Message": "Access to this resource is disabled."}),
            "was disabled",
            "another copy",
        ),
        (Repo(), Fault(times=9, status=429, headers={"Retry-After": "0"}), "too often (HTTP 429)", "HF_TOKEN"),
        (Repo(), Fault(times=9, status=429, headers={"Retry-After": "9999"}), "too often (HTTP 429)", "later"),
        (Repo(), Fault(times=9, status=500), "cannot be looked up (HTTP 500)", "later"),
        (Repo(), Fault(times=9, page=True), "does not answer as a hub does", "HF_ENDPOINT"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failed_lookup_is_listed_with_the_reason_and_does_not_stop_others(
    hub: HubServer, repo: Repo | None, fault: Fault | None, reason: str, hint: str
) -> None:
    hub.repos["lab/good"] = Repo({"rows.json": ROWS})
    if repo is not None:
        hub.repos["lab/data"] = repo
    if fault is not None:
        hub.faults["/lab/data"] = fault
    lock = locked(spec("bad"), spec("good", repo="lab/good"), spec("homeless", repo=None))
    assert lock.get_entry(spec("bad")) is None and lock.get_entry(spec("good", repo="lab/good")) is not None
    bad, homeless = lock.sources["bad"], lock.sources["homeless"]
    assert reason in (bad.reason or "") and hint in (bad.hint or "")
    assert (homeless.reason, homeless.hint) == ("no public home is known", None)


def test_transient_hub_failures_are_retried(data: Repo, hub: HubServer) -> None:
    hub.faults["/api/"] = Fault(times=3, status=503)
    assert locked(spec()).get_entry(spec()) is not None
    assert len(hub.requests_of("/api/")) == 4


def test_missing_repository_and_wrong_token_have_different_reasons(
    data: Repo, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    lock = locked(spec("gone", repo="lab/gone"))
    assert lock.sources["gone"].reason == "lab/gone does not exist (HTTP 404)"


def test_lock_without_network_keeps_the_earlier_entries(data: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    old = locked(spec())
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{find_free_port()}")
    lines: list[str] = []
    new = lock_sources([spec(), spec("other")], old, lines.append)
    entry = new.get_entry(spec())
    assert entry is not None and entry.files == old.sources["demo"].files
    assert "cannot be reached" in (entry.reason or "") and "kept as it was" in lines[0]
    assert new.get_entry(spec("other")) is None and "cannot be reached" in (new.sources["other"].reason or "")


def test_a_gated_repository_is_locked_and_says_so(data: Repo) -> None:
    data.gated = "manual"
    entry = locked(spec()).get_entry(spec())
    assert entry is not None and entry.gated == "manual"


def test_file_names_that_leave_the_folder_are_left_out(data: Repo) -> None:
    data.sizes = {"../evil.json": 1, "/etc/evil.json": 1, "a/../../evil.json": 1, "b\\evil.json": 1, "fine/x.json": 1}
    entry = locked(spec()).get_entry(spec())
    assert entry is not None
    assert [f.name for f in entry.files] == ["fine/x.json", "images.tar.gz", "rows.json"]


def test_changed_declaration_invalidates_a_lock_entry(data: Repo) -> None:
    lock = locked(spec())
    assert lock.get_entry(spec()) is not None
    for other in (spec(config="x"), spec(files=["*.json"]), spec(format="llava_parquet"), spec(repo="lab/other")):
        assert lock.get_entry(other) is None


def test_url_is_locked_with_its_size_or_refused_as_a_web_page(hub: HubServer) -> None:
    hub.plain["rows.json"] = TAR
    hub.faults["plain/page.json"] = Fault(page=True)
    sources = {
        "file": spec("file", repo=None, url=f"{hub.url}/plain/rows.json"),
        "page": spec("page", repo=None, url=f"{hub.url}/plain/page.json"),
        "home": spec("home", repo=None, url="https://visualqa.example"),
        "gone": spec("gone", repo=None, url=f"{hub.url}/plain/gone.json"),
    }
    lock = locked(*sources.values())
    assert [f.size for f in lock.sources["file"].files] == [5000]
    assert "is a web page, not a file" in (lock.sources["page"].reason or "")
    assert "is the URL of a page" in (lock.sources["home"].reason or "")
    assert "HTTP 404" in (lock.sources["gone"].reason or "")


@pytest.mark.parametrize(
    "text", ["", "{", '{"version": 2, "sources": {}}', '{"sources": {"a": 1}}', '{"what": 1}', "\xff\xfe"]
)
def test_damaged_lock_file_raises_an_error_with_its_name(home: Path, text: str) -> None:
    home.mkdir()
    load_settings().lock_file.write_text(text, encoding="latin-1")
    with pytest.raises(MvlError, match=r"sources\.lock\.json") as caught:
        read_lockfile()
    assert caught.value.hint


def test_lock_file_path_comes_from_the_environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVL_SOURCES_LOCK", str(tmp_path / "mine.json"))
    write_lockfile(Lockfile())
    assert json.loads((tmp_path / "mine.json").read_text(encoding="utf-8")) == {"sources": {}, "version": 1}


def test_unreachable_hub_is_not_tried_for_every_repository(data: Repo, hub: HubServer) -> None:
    hub.faults["/api/datasets/"] = Fault(times=99, hang_up=True)
    lock = locked(spec(), spec("other", repo="lab/other"))
    assert {entry.reason for entry in lock.sources.values()} == {f"{hub.url} cannot be reached (RemoteProtocolError)"}
    assert hub.requests_of("lab/data") and not hub.requests_of("lab/other")
