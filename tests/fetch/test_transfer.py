"""One file over a bad line, from a hub and from a plain address."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.settings import PROJECT_ROOT
from mvl_assets.errors import InfrastructureError, MvlError
from mvl_assets.fetch.errors import FetchError
from mvl_assets.fetch.source import fetch_source
from mvl_assets.fetch.state import PARTIAL_DIR, get_state_path, load_state
from tests.fetch.hub_server import Fault, HubServer, Repo
from tests.fetch.sources import QUICK, noise, spec
from tests.lake.small_disk import small_disk
from tests.patience import PATIENCE_S

BIG = noise(200_000)
FETCH = """
import sys
from mvl_assets.fetch.source import fetch_source
from tests.fetch.sources import spec
fetch_source(spec(repo=None, url=sys.argv[1]))
"""


def plain(hub: HubServer, name: str = "rows.json", data: bytes = BIG) -> SourceSpec:
    hub.plain[name] = data
    return spec(repo=None, url=f"{hub.url}/plain/{name}")


def fetched(source: SourceSpec, name: str = "rows.json") -> bytes:
    fetch_source(source, retry_policy=QUICK)
    assert not (source.root / PARTIAL_DIR).exists()
    return (source.root / name).read_bytes()


def parts(source: SourceSpec) -> list[Path]:
    return sorted((source.root / PARTIAL_DIR).glob("*.part"))


def test_dropped_connection_resumes_where_it_broke(hub: HubServer) -> None:
    source = plain(hub)
    hub.faults["/plain/rows.json"] = Fault(times=3, drop=50_000)
    hub.written = lambda: sum(p.stat().st_size for p in parts(source))
    assert fetched(source) == BIG
    asked = [h for h in hub.requests_of("rows.json") if h.get("range", "bytes=0-0") != "bytes=0-0"]
    assert [h["range"] for h in asked] == ["bytes=50000-", "bytes=100000-", "bytes=150000-"]
    assert all("if-range" in h for h in asked)
    assert hub.sent["rows.json"] == len(BIG) + 1


def test_server_that_ignores_the_range_restarts_the_file(hub: HubServer) -> None:
    source = plain(hub)
    hub.faults["rows.json"] = Fault(times=2, drop=70_000)
    hub.faults["plain/"] = Fault(times=2, no_ranges=True)
    assert fetched(source) == BIG


def test_connection_that_always_drops_ends_in_an_error_and_keeps_the_part(hub: HubServer) -> None:
    source = plain(hub)
    breaks(hub, source, after=80_000)
    before = hub.sent["rows.json"]
    assert fetched(source) == BIG
    assert hub.sent["rows.json"] - before == len(BIG) - 80_000 + 1  # and a byte to ask how large it is


def test_file_that_changed_on_the_server_is_restarted(hub: HubServer) -> None:
    source = plain(hub)
    breaks(hub, source, after=80_000)
    hub.plain["rows.json"] = noise(200_000, seed=1)
    assert fetched(source) == noise(200_000, seed=1)


def breaks(hub: HubServer, source: SourceSpec, *, after: int) -> None:
    """A fetch that ends with an error after so many bytes."""
    hub.written = lambda: sum(p.stat().st_size for p in parts(source))
    hub.faults["plain/"] = Fault(drop=after)
    hub.faults["rows.json"] = Fault(times=100, drop=0)
    with pytest.raises(FetchError, match=r"demo: rows\.json: 127\.0\.0\.1: ") as caught:
        fetch_source(source, retry_policy=QUICK)
    assert "what has arrived is kept" in (caught.value.hint or "")
    assert not (source.root / "rows.json").exists()
    assert [p.stat().st_size for p in parts(source)] == [after]
    hub.faults.clear()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_transient_failures_of_a_download_are_retried(hub: HubServer, status: int) -> None:
    hub.repos["lab/data"] = Repo({"rows.json": BIG})
    hub.faults["/resolve/"] = Fault(times=2, status=status, headers={"Retry-After": "0"})
    assert fetched(spec()) == BIG


@pytest.mark.parametrize(
    ("fault", "says", "hint"),
    [
        (Fault(status=404), "it is not at 127.0.0.1 (HTTP 404)", "mvl sources lock"),
        (Fault(status=410), "(HTTP 410)", "mvl sources lock"),
        (Fault(status=401), "denies access (HTTP 401)", "HF_TOKEN"),
        (Fault(status=403), "denies access (HTTP 403)", "accept its terms"),
        (Fault(status=418), "answers HTTP 418", ""),
        (Fault(status=429, headers={"Retry-After": "7200"}), "asks to come back in 7200 s", "run it again then"),
        (Fault(page=True), "gives a web page instead of data", "by hand"),
        (Fault(body=BIG + b"x"), "has 200001 bytes where 200000 were expected", "mvl sources lock"),
        (Fault(body=BIG[:-1]), "has 199999 bytes where 200000 were expected", "mvl sources lock"),
        (Fault(body=BIG + b"x", headers={"Content-Length": "", "Connection": "close"}), "sends more than", ""),
        (Fault(body=noise(200_000, seed=3)), "what arrived is not the expected file (sha256", "run it again"),
        (Fault(headers={"Content-Encoding": "gzip"}), "encoded as gzip", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_permanent_failure_raises_at_once_and_leaves_no_file(
    hub: HubServer, fault: Fault, says: str, hint: str
) -> None:
    hub.repos["lab/data"] = Repo({"rows.json": BIG})
    hub.faults["/cdn/" if fault.status is None else "/resolve/"] = fault
    source = spec()
    with pytest.raises(FetchError) as caught:
        fetch_source(source, retry_policy=QUICK)
    assert caught.value.message.startswith("demo: rows.json: ") and says in caught.value.message
    assert hint in (caught.value.hint or "")
    assert not (source.root / "rows.json").exists()
    assert fetched(source) == BIG  # the fault was for one answer


def test_small_file_is_verified_by_its_git_object_id(hub: HubServer) -> None:
    hub.repos["lab/data"] = Repo({"rows.json": b"[1, 2]"})
    hub.faults["/resolve/"] = Fault(body=b"[1, 3]")
    with pytest.raises(FetchError, match=r"git object .* expected"):
        fetch_source(spec(), retry_policy=QUICK)
    assert fetched(spec()) == b"[1, 2]"


def test_empty_file_is_downloaded(hub: HubServer) -> None:
    hub.repos["lab/data"] = Repo({"rows.json": b"", "more.json": BIG})
    assert fetched(spec()) == b""


def test_file_of_unknown_size_is_downloaded_completely(hub: HubServer) -> None:
    source = plain(hub)
    hub.faults["plain/"] = Fault(times=2, chunked=True)
    hub.faults["rows.json"] = Fault(drop=50_000, chunked=True)
    assert fetched(source) == BIG


def test_file_without_length_or_end_is_refused(hub: HubServer) -> None:
    source = plain(hub)
    hub.faults["rows.json"] = Fault(times=2, headers={"Content-Length": "", "Connection": "close"}, no_ranges=True)
    with pytest.raises(FetchError, match="a cut could not be noticed"):
        fetch_source(source, retry_policy=QUICK)
    assert not (source.root / "rows.json").exists()


def test_file_url_is_copied(tmp_path: Path, home: Path) -> None:
    (tmp_path / "rows of mine.json").write_bytes(BIG)
    source = spec(repo=None, url=(tmp_path / "rows of mine.json").as_uri())
    assert fetched(source, "rows of mine.json") == BIG
    (tmp_path / "rows of mine.json").unlink()
    with pytest.raises(FetchError, match="there is no file"):
        fetch_source(spec("other", repo=None, url=source.url), retry_policy=QUICK)


def test_a_token_is_sent_to_the_hub_only_and_never_printed(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    hub.token = "hf_secretsecret"
    hub.repos["lab/data"] = Repo({"rows.json": BIG}, gated="manual")
    hub.faults["/cdn/"] = Fault(times=1, drop=1000)
    lines: list[str] = []
    fetch_source(spec(), log=lines.append, retry_policy=QUICK)
    assert all("authorization" in h for h in hub.requests_of("/resolve/"))
    assert hub.requests_of("/cdn/") and not any("authorization" in h for h in hub.requests_of("/cdn/"))
    monkeypatch.setenv("HF_TOKEN", "hf_othersecret")
    hub.repos["lab/data"].change({"rows.json": noise(5000)})
    with pytest.raises(MvlError) as caught:
        fetch_source(spec(), log=lines.append, retry_policy=QUICK)
    written = [p.read_bytes() for p in get_state_path("demo").parents[1].rglob("*") if p.is_file()]
    assert not any("secret" in text for text in [*lines, repr(caught.value), str(caught.value)])
    assert not any(b"secret" in content for content in written)


def test_full_disk_is_reported_before_the_first_request(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["lab/data"] = Repo({"rows.json": BIG})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1_000_000, 900_000, 100_000))
    with pytest.raises(InfrastructureError, match=r"200\.0 kB are to be fetched .* only 100\.0 kB are free") as caught:
        fetch_source(spec(), retry_policy=QUICK)
    assert "keep_archives: false" in (caught.value.hint or "")
    assert hub.requests_of("/resolve/") == []


def test_disk_that_fills_up_during_a_download_is_reported(hub: HubServer, home: Path) -> None:
    home.mkdir()
    if shutil.which("unshare") is None or subprocess.run([*small_disk(home), "true"], capture_output=True).returncode:
        pytest.skip("an unprivileged user may not mount a file system on this machine")
    source = plain(hub, data=noise(3_000_000))
    hub.faults["plain/"] = Fault(times=2, chunked=True, no_ranges=True)
    command = [*small_disk(home), sys.executable, "-c", FETCH, source.url or ""]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1 and f"the disk of {source.root} is full | make room" in done.stderr, done.stderr


def test_killed_fetch_requests_only_the_rest(hub: HubServer) -> None:
    """kill -9 while the server holds its breath; the next process gets the rest, byte by byte counted."""
    big = noise(3_000_000)
    hub.plain["rows.jsonl"] = big
    hub.faults["/plain/"] = Fault(hold=2_000_000)
    source = spec(repo=None, url=f"{hub.url}/plain/rows.jsonl")
    hub.written = lambda: sum(p.stat().st_size for p in parts(source))
    process = subprocess.Popen([sys.executable, "-c", FETCH, source.url or ""], cwd=PROJECT_ROOT)
    try:
        assert hub.held.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        hub.release.set()
    assert not (source.root / "rows.jsonl").exists()
    state = load_state(source)
    assert state is not None and not state.complete
    kept = hub.written()
    assert kept == 2_000_000
    before = hub.sent["rows.jsonl"]
    assert fetched(source, "rows.jsonl") == big
    assert hub.sent["rows.jsonl"] - before == len(big) - kept + 1  # and a byte to ask how large it is
