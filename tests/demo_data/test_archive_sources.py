"""Miniatures in archives and of videos are read as their markers say, and are what public tools take them for."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mvl_assets.config.catalog import get_source
from mvl_assets.demo_data.recipes import RECIPES, archives, videos
from mvl_assets.demo_data.write import WrittenDemoSource, write_demo_sources
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import iter_current_samples
from mvl_assets.readers.files import DEMO_MARKER_FILE
from mvl_assets.readers.registry import get_reader
from mvl_assets.readers.sample import RejectedRow, Sample
from tests.demo_data.verdicts import verdict

SLUGS = tuple(recipe.slug for recipe in (*archives.RECIPES, *videos.RECIPES))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenDemoSource]:
    raw: Path = tmp_path_factory.mktemp("packed")
    return {written.slug: written for written in write_demo_sources(raw, SLUGS, n_rows=30)}


@pytest.mark.parametrize("slug", SLUGS)
def test_every_row_is_read_with_the_verdict_of_the_marker_file(slug: str, packed: dict[str, WrittenDemoSource]) -> None:
    written = packed[slug]
    assert get_source(slug).format == written.format
    rows = list(get_reader(written.format)(get_source(slug), written.source_dir))
    marker = json.loads((written.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    assert Counter(map(verdict, rows)) == Counter({"good": written.n_good_rows, **marker["rejects"]})
    assert len(marker["rejects"]) >= 2
    for row in rows:
        if isinstance(row, RejectedRow) and row.error == "unsafe_member":
            assert f"{slug}.tar.gz: {slug}/" in row.message and "symbolic link" in row.message


@pytest.mark.parametrize("slug", SLUGS)
def test_rows_say_and_show_what_was_drawn(slug: str, packed: dict[str, WrittenDemoSource]) -> None:
    written, recipe = packed[slug], RECIPES[slug]
    drawn = {row.row_id: row for row in recipe.build_rows(30, 0)}
    in_order = list(drawn.values())
    seen = 0
    for sample in get_reader(written.format)(get_source(slug), written.source_dir):
        if isinstance(sample, RejectedRow):
            continue
        row = in_order[sample.position] if sample.native_id is None else drawn[sample.native_id]
        answers = [turn.value for turn in sample.turns if turn.role == "gpt"]
        assert answers == [answer for _, answer in row.turns]
        asked = [turn.value for turn in sample.turns if turn.role == "human"]
        assert all(question in output for (question, _), output in zip(row.turns, asked, strict=True))
        assert [image.read() for image in sample.images] == [picture.data for picture in row.images]
        assert (sample.video is None) == (row.video is None)
        seen += 1
    assert seen >= 24


def test_the_same_seed_gives_the_same_bytes(packed: dict[str, WrittenDemoSource], tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and ".unpacked" not in path.parts
        }

    slugs = ("idk", "co_instruct", "mammoth_vl_instruct_12m", "llava_hound")
    for written in write_demo_sources(tmp_path, slugs, n_rows=30):
        assert digests(written.source_dir) == digests(packed[written.slug].source_dir), written.slug


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
def test_the_parts_of_a_zip_are_those_of_info_zip(packed: dict[str, WrittenDemoSource], tmp_path: Path) -> None:
    folder = packed["co_instruct"].source_dir
    joined = tmp_path / "coinstruct.zip"
    done = subprocess.run(
        ["zip", "-s", "0", str(folder / "coinstruct_split.zip"), "--out", str(joined)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "m4_instruct_annotations.json", alone)
    shutil.copy(joined, alone)

    def pictures(root: Path) -> list[bytes]:
        rows = get_reader("m4_instruct")(get_source("co_instruct"), root)
        return [image.read() for row in rows if isinstance(row, Sample) for image in row.images]

    assert pictures(alone) == pictures(folder) != []


def test_ingest_reads_archived_images_and_videos_and_changes_nothing_when_repeated(
    packed: dict[str, WrittenDemoSource], tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    for slug in ("mammoth_vl_instruct_12m", "llava_hound"):
        written, source = packed[slug], get_source(slug)
        first = ingest_source(lake, source, written.source_dir, run_id="first")
        assert (first.n_new, first.reject_counts) == (
            written.n_good_rows,
            json.loads((written.source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))["rejects"],
        )
        second = ingest_source(lake, source, written.source_dir, run_id="second")
        assert (second.n_new, second.n_changed, second.n_withdrawn, second.n_new_images) == (0, 0, 0, 0)
    hound = list(iter_current_samples(lake, "llava_hound"))
    assert all(s["video"]["seconds"][:3] == [0.0, 0.5, 1.0] for s in hound)
    assert all(len(s["image_ids"]) == len(s["video"]["seconds"]) for s in hound)
