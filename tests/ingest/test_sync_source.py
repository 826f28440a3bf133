"""From a hub into the lake, and what stays when the archives are removed."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.config.settings import UNPACKED_DIR
from mvl_assets.errors import SourceError
from mvl_assets.fetch.lock import read_lockfile, write_lockfile
from mvl_assets.fetch.lookup import lock_sources
from mvl_assets.fetch.overview import describe_state, list_files
from mvl_assets.fetch.plan import plan_ingest
from mvl_assets.fetch.source import fetch_source
from mvl_assets.ingest.ingest import IngestReport
from mvl_assets.ingest.sync_source import sync_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.purge import Purge
from mvl_assets.lake_queries.removal.tombstones import add_tombstones, allow_samples, allow_source
from tests.archive_files import zipped
from tests.fetch.hub_server import HubServer, Repo
from tests.fetch.sources import spec
from tests.raw_files import make_image, talk

SOURCE = spec(format="llava_parquet")


def table(*numbers: int, broken: int | None = None) -> bytes:
    """A Parquet file of rows with drawn pictures; the picture of `broken` is named and not there."""
    rows = [
        {
            "id": str(n),
            "image": {"bytes": None if n == broken else make_image(n), "path": f"{n}.png"},
            "conversations": talk(f"<image>\nWhich is {n}?", f"Number {n}."),
        }
        for n in numbers
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.fixture
def data(hub: HubServer) -> Repo:
    hub.repos["lab/data"] = Repo({"a.parquet": table(0, 1, 2), "b.parquet": table(3, 4)})
    return hub.repos["lab/data"]


def profile(**fields: Any) -> Profile:
    return load_profile("demo").model_copy(update={"limit": None, "fetch": True, **fields})


def brought(lake: Lake, source: SourceSpec = SOURCE, **fields: Any) -> IngestReport:
    return sync_source(lake, source, profile(**fields), run_id="r")


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.n_rows, report.n_new, report.n_changed, report.n_withdrawn


def relock() -> None:
    write_lockfile(lock_sources([SOURCE], read_lockfile()))


def test_purged_source_is_not_fetched_until_it_is_allowed_again(lake: Lake, data: Repo, hub: HubServer) -> None:
    add_tombstones(lake, "demo", [(None, None)])
    with pytest.raises(SourceError, match="was purged from the lake, so its files are not fetched") as caught:
        brought(lake)
    assert caught.value.hint == "`mvl purge allow source demo` allows it again"
    assert hub.asked == [] and not SOURCE.root.exists()
    assert allow_source(lake, "demo")
    assert counts(brought(lake)) == (5, 5, 0, 0)
    asked = len(hub.asked)
    data.files["c.parquet"] = table(5)
    relock()
    add_tombstones(lake, "demo", [(None, None)])
    report = brought(lake)
    assert (report.n_rows, report.reject_counts) == (0, {"purged": 1})
    assert not any("c.parquet" in name for name in hub.asked[asked:])


def test_missing_files_are_fetched_if_the_profile_allows(lake: Lake, data: Repo, hub: HubServer) -> None:
    with pytest.raises(SourceError, match="does not exist") as caught:
        brought(lake, fetch=False)
    assert "`mvl sources fetch --source demo`" in (caught.value.hint or "")
    assert hub.asked == []
    lines: list[str] = []
    report = sync_source(lake, SOURCE, profile(), run_id="r", log=lines.append)
    assert counts(report) == (5, 5, 0, 0)
    assert any("unverified" in line for line in lines) and any("all there" in line for line in lines)
    asked = len(hub.asked)
    assert counts(brought(lake)) == (5, 0, 0, 0)
    assert len(hub.asked) == asked


def test_incomplete_folder_is_not_ingested(lake: Lake, data: Repo) -> None:
    relock()
    brought(lake)
    (SOURCE.root / "b.parquet").unlink()
    with pytest.raises(SourceError, match=r"b\.parquet is gone or was changed") as caught:
        brought(lake, fetch=False)
    assert "mvl sources fetch --refetch --source demo" in (caught.value.hint or "")
    assert counts(brought(lake)) == (5, 0, 0, 0)


def test_new_locked_commit_is_fetched_if_the_profile_allows(lake: Lake, data: Repo) -> None:
    relock()
    brought(lake)
    data.change({"a.parquet": table(0, 1)})
    relock()
    assert counts(brought(lake, fetch=False)) == (5, 0, 0, 0)
    assert counts(brought(lake)) == (4, 0, 0, 1)


def test_files_put_there_by_hand_are_not_fetched(lake: Lake, data: Repo, hub: HubServer) -> None:
    SOURCE.root.mkdir(parents=True)
    (SOURCE.root / "mine.parquet").write_bytes(table(7))
    assert counts(brought(lake, keep_archives=False)) == (1, 1, 0, 0)
    assert hub.asked == [] and list_files(SOURCE.root) == ["mine.parquet"]


def test_removed_archives_are_not_refetched_and_withdraw_no_rows(lake: Lake, data: Repo, hub: HubServer) -> None:
    relock()
    first = brought(lake, keep_archives=False)
    assert list_files(SOURCE.root) == []
    assert describe_state(SOURCE, read_lockfile()) == f"ingested, archives removed at {data.commit[:12]}"
    asked = len(hub.asked)
    for fetch in (True, False):
        again = brought(lake, keep_archives=False, fetch=fetch)
        assert counts(again) == (5, 0, 0, 0)
        assert (again.data_version, again.reject_counts) == (first.data_version, first.reject_counts)
    fetch_source(SOURCE)
    assert len(hub.asked) == asked
    plan = plan_ingest(SOURCE, read_lockfile(), limit=None, bandwidth_mbit=1000)
    assert (plan.state, plan.bytes_to_fetch, plan.archive_bytes) == ("removed", 0, 0)


def test_purged_sample_of_removed_archives_returns_once_allowed(lake: Lake, data: Repo) -> None:
    relock()
    brought(lake, keep_archives=False)
    gone = next(row["sample_id"] for row in lake.get_table("samples").iter_rows(["sample_id"]))
    Purge(lake, SOURCE.slug, [gone]).run()
    assert counts(brought(lake, keep_archives=False)) == (5, 0, 0, 0)
    assert lake.get_table("samples").count() == 4
    allow_samples(lake, [gone])
    assert counts(brought(lake, keep_archives=False)) == (5, 1, 0, 0)
    assert lake.get_table("samples").count() == 5
    assert list_files(SOURCE.root) == []


def test_new_commit_is_fetched_and_its_missing_rows_are_withdrawn(lake: Lake, data: Repo) -> None:
    relock()
    brought(lake, keep_archives=False)
    data.change({"a.parquet": table(0, 1), "b.parquet": None, "c.parquet": table(5)})
    assert counts(brought(lake, keep_archives=False)) == (5, 0, 0, 0)
    relock()
    assert counts(brought(lake, keep_archives=False)) == (3, 1, 0, 3)
    assert list_files(SOURCE.root) == []


def test_changed_limit_or_licence_refetches_removed_archives(lake: Lake, data: Repo) -> None:
    relock()
    brought(lake, keep_archives=False)
    with pytest.raises(SourceError, match="its archives were removed after they were ingested"):
        brought(lake, keep_archives=False, fetch=False, limit=100)
    assert counts(brought(lake, keep_archives=False, limit=100)) == (5, 0, 0, 0)
    licensed = SOURCE.model_copy(update={"license": "mit"})
    assert counts(brought(lake, licensed, keep_archives=False, limit=100)) == (5, 0, 5, 0)


def test_archives_are_kept_while_rows_may_still_be_recovered(lake: Lake, data: Repo) -> None:
    relock()
    brought(lake, keep_archives=False, limit=4)
    assert list_files(SOURCE.root) == ["a.parquet", "b.parquet"]
    data.change({"b.parquet": table(3, 4, broken=4)})
    relock()
    fetch_source(SOURCE)
    assert brought(lake, keep_archives=False).reject_counts == {"missing_image": 1}
    assert list_files(SOURCE.root) == ["a.parquet", "b.parquet"]


def test_user_managed_files_are_not_removed(lake: Lake, data: Repo) -> None:
    SOURCE.root.mkdir(parents=True)
    (SOURCE.root / "a.parquet").write_bytes(data.files["a.parquet"])
    fetch_source(SOURCE)
    brought(lake, keep_archives=False)
    assert list_files(SOURCE.root) == ["a.parquet", "b.parquet"]


def test_another_lake_refetches_removed_archives(lake: Lake, data: Repo, tmp_path: Path) -> None:
    relock()
    brought(lake, keep_archives=False)
    other = Lake(str(tmp_path / "other"))
    assert counts(brought(other, keep_archives=False)) == (5, 5, 0, 0)


def test_removal_killed_midway_is_finished_by_the_next_run(lake: Lake, data: Repo) -> None:
    relock()
    brought(lake, keep_archives=False)
    fetch_source(SOURCE, refetch=True)
    kept = {name: (SOURCE.root / name).read_bytes() for name in list_files(SOURCE.root)}
    before = [(SOURCE.root / name).stat() for name in kept]
    brought(lake, keep_archives=False)
    for (name, content), stat in zip(kept.items(), before, strict=True):
        (SOURCE.root / name).write_bytes(content)
        os.utime(SOURCE.root / name, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert counts(brought(lake, keep_archives=False)) == (5, 0, 0, 0)
    assert list_files(SOURCE.root) == []


def test_paper_and_small_profiles_fetch_and_the_demo_does_not() -> None:
    assert [load_profile(name).fetch for name in ("paper", "small", "demo", "demo-all")] == [True, True, False, False]
    assert load_profile("paper").keep_archives


def test_unpacked_files_are_not_listed_and_are_removed_with_the_archives(lake: Lake, data: Repo) -> None:
    packed = zipped(("images/1.png", make_image(1)))
    rows = [{"id": "1", "image": "images/1.png", "conversations": talk("<image>\n?", "One.")}]
    data.change({"a.parquet": None, "b.parquet": None, "rows.json": json.dumps(rows).encode(), "images.zip": packed})
    source = spec(format="llava_json")
    write_lockfile(lock_sources([source], read_lockfile()))
    assert counts(brought(lake, source)) == (1, 1, 0, 0) and (source.root / UNPACKED_DIR).is_dir()
    assert list_files(source.root) == ["images.zip", "rows.json"]
    fetch_source(source)
    assert counts(brought(lake, source, keep_archives=False)) == (1, 0, 0, 0)
    assert not (source.root / UNPACKED_DIR).exists()


def test_files_in_an_alternate_format_are_read_and_others_say_what_is_expected(lake: Lake) -> None:
    source = SOURCE.model_copy(update={"hub": None, "alternates": ("llava_json",)})
    source.root.mkdir(parents=True)
    (source.root / "notes.md").write_text("nothing")
    with pytest.raises(SourceError, match=r"no \*\*/\*\.parquet") as caught:
        brought(lake, source)
    assert caught.value.hint is not None
    for expected in ("(llava_parquet); or ", "the *.json or *.jsonl of conversations", "(llava_json)", "sources sniff"):
        assert expected in caught.value.hint
    (source.root / "rows.json").write_text(json.dumps([{"id": "1", "image": "1.png", "conversations": talk("?", "!")}]))
    (source.root / "1.png").write_bytes(make_image(1))
    lines: list[str] = []
    report = sync_source(lake, source, profile(), run_id="r", log=lines.append)
    assert (report.n_new, "read as llava_json" in lines[0]) == (1, True)
