"""WIT, links with captions, and formats that need no module, each from a small set built by its public description."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_assets.config.catalog import load_catalog
from mvl_assets.errors import SourceError
from mvl_assets.readers.conversations.caption_turns import MAX_TEXT_CHARS
from mvl_assets.readers.formats.coco_captions import QUESTION
from mvl_assets.readers.parsers import delimited, parquet_columns
from mvl_assets.readers.registry import get_reader
from mvl_assets.readers.sample import RejectedRow
from tests.raw_files import errors, good, keyed, list_turns, make_image, messages, put, put_parquet, read_all, source

WIT = source("wit")
URLS = source("url_captions")
WIT_HEADER = (
    *("language", "page_url", "image_url", "page_title", "section_title", "hierarchical_section_title"),
    *("caption_reference_description", "caption_attribution_description", "caption_alt_text_description"),
)


def tsv(*rows: Mapping[str, str], header: Sequence[str] = WIT_HEADER, quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=quoting)
    writer.writerow(header)
    writer.writerows([row.get(name, "") for name in header] for row in rows)
    return text.getvalue().encode()


def fetched(root: Path, url: str, data: bytes, ending: str = ".jpg") -> None:
    put(root, f"pictures/{hashlib.sha256(url.encode()).hexdigest()}{ending}", data)


# WIT


def test_wit_asks_by_title_and_section_and_takes_the_surest_caption(tmp_path: Path) -> None:
    base = {"page_title": "Half Dome", "section_title": "Geology", "language": "en"}
    rows = [
        {**base, "image_url": "u1", "caption_reference_description": 'Seen from\n"Glacier Point"\t.', "page_url": "p"},
        {**base, "image_url": "u2", "caption_attribution_description": "A dome.", "caption_alt_text_description": "x"},
        {"page_title": "Half Dome", "image_url": "u3", "caption_alt_text_description": "Dome."},
    ]
    put(tmp_path, "wit_v1.train.all-00000-of-00010.tsv.gz", gzip.compress(tsv(*rows)))
    for number, url in enumerate(("u1", "u2", "u3")):
        fetched(tmp_path, url, make_image(number), (".jpg", ".png", "")[number])
    read = good(read_all(WIT, tmp_path))
    assert [list_turns(sample)[1] for sample in read] == [
        ("gpt", 'Seen from "Glacier Point" .'),
        ("gpt", "A dome."),
        ("gpt", "Dome."),
    ]
    article = 'This picture is shown in the Wikipedia article "Half Dome"'
    assert list_turns(read[0])[0] == ("human", f'<image>\n{article}, section "Geology". What does it show?')
    assert list_turns(read[2])[0] == ("human", f"<image>\n{article}. What does it show?")
    assert [sample.native_id for sample in read] == ["u1", "u2", "u3"]
    assert [p.read() for sample in read for p in sample.images] == [make_image(n) for n in range(3)]
    keyed(WIT, tmp_path)


def test_wit_rejects_every_broken_row_and_continues(tmp_path: Path) -> None:
    caption = {"caption_reference_description": "It.", "page_title": "T"}
    rows = tsv(
        {**caption, "image_url": "gone"},
        {"image_url": "u", "page_title": "T"},
        {**caption, "image_url": ""},
        {**caption, "image_url": "u", "caption_reference_description": "see <image>"},
        {**caption, "image_url": "u"},
    )
    put(tmp_path, "wit.tsv", rows + b"en\tshort row\nen\tp\tu\tT\t\t\t\xff\t\t\n")
    fetched(tmp_path, "u", make_image())
    read = read_all(WIT, tmp_path)
    assert errors(read) == [
        (0, "missing_image"),
        (1, "no_caption"),
        (2, "no_url"),
        (3, "marker_in_text"),
        (5, "bad_csv"),
        (6, "bad_utf8"),
    ]
    assert "gone was not fetched" in messages(read)[0]
    assert [sample.position for sample in good(read)] == [4]
    keyed(WIT, tmp_path)


def test_wit_with_embedded_images_prefers_english_and_falls_back_to_the_attribution(tmp_path: Path) -> None:
    def features(*captions: str | None) -> dict[str, list[str | None]]:
        return {
            "language": ["da", "en"],
            "page_title": ["Bro", "Bridge"],
            "section_title": [None, None],
            "caption_reference_description": list(captions),
        }

    def row(url: str, captions: tuple[str | None, str | None], attribution: str | None = None) -> dict[str, Any]:
        image = {"bytes": make_image(len(url)), "path": None}
        return {
            "image": image,
            "image_url": url,
            "caption_attribution_description": attribution,
            "embedding": [0.1],
        } | {"wit_features": features(*captions)}

    put_parquet(
        tmp_path,
        "data/train-00000-of-00330.parquet",
        [
            row("a", ("En bro.", "A bridge.")),
            row("bb", ("En bro.", None), "English: the old bridge"),
            row("ccc", (None, None), "The old bridge"),
            row("dddd", (None, None)),
        ],
    )
    read = read_all(WIT, tmp_path)
    told = [(turns[0][1].split('"')[1], turns[1][1]) for turns in map(list_turns, good(read))]
    assert told == [("Bridge", "A bridge."), ("Bro", "En bro."), ("Bridge", "The old bridge")]
    assert errors(read) == [(3, "no_caption")]
    assert good(read)[1].images[0].read() == make_image(2)
    keyed(WIT, tmp_path)


def test_wit_rows_of_one_page_in_parquet_are_read_from_their_own_fields(tmp_path: Path) -> None:
    row = {"image": {"bytes": make_image(), "path": None}, "image_url": "u", "caption_reference_description": "Et hus."}
    put_parquet(tmp_path, "a.parquet", [{**row, "page_title": "Hus", "section_title": None}])
    (sample,) = good(read_all(WIT, tmp_path))
    assert list_turns(sample)[1] == ("gpt", "Et hus.") and '"Hus"' in list_turns(sample)[0][1]


def test_a_table_with_other_columns_or_cut_off_is_one_broken_file_by_name(tmp_path: Path) -> None:
    put(tmp_path, "a.tsv", b"id\tcaption\n1\tx\n")
    whole = gzip.compress(tsv(*[{"image_url": f"u{n}" * 50, "page_title": str(n)} for n in range(3000)]))
    put(tmp_path, "b.tsv.gz", whole[: len(whole) // 2])
    put_parquet(tmp_path, "c.parquet", [{"id": "1", "text": "x"}])
    read = read_all(WIT, tmp_path)
    broken = [row for row in read if isinstance(row, RejectedRow) and row.error == "broken_file"]
    assert [row.file for row in broken] == ["a.tsv", "b.tsv.gz", "c.parquet"]
    assert "has the columns id, caption, but not image_url, page_title" in broken[0].message
    assert broken[1].position > 0
    assert "has the columns id, text, but not image_url, image, wit_features or caption" in broken[2].message
    keyed(WIT, tmp_path)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(delimited, "MAX_FIELD_CHARS", 1000)
    put(tmp_path, "a.tsv.gz", gzip.compress(tsv({"image_url": "u"}) + b"x" * 1_000_000))
    assert errors(read_all(WIT, tmp_path)) == [(0, "no_caption"), (1, "broken_file")]


# A NUL is no text: such a row is refused.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_any_cells_are_read_as_they_were_written(cells: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"image_url": one, "page_title": two} for one, two in cells]
        path = Path(folder) / "a.tsv"
        path.write_bytes(tsv(*rows, header=("image_url", "page_title"), quoting=csv.QUOTE_ALL))
        assert [item.value for item in delimited.iter_rows(path, "\t")] == rows  # type: ignore[union-attr]


# Links with captions


def shard(root: Path, number: int, rows: Sequence[tuple[str, str, str]]) -> None:
    """What img2dataset writes beside the folder of a shard."""
    listed = [{"url": url, "key": key, "status": status, "error_message": None} for url, key, status in rows]
    put_parquet(root, f"pictures/{number:05d}.parquet", listed)


@pytest.mark.parametrize("columns", [("link", "caption"), ("url", "caption"), ("URL", "TEXT")])
def test_links_are_found_under_all_names_that_published_sets_use(tmp_path: Path, columns: tuple[str, str]) -> None:
    put_parquet(tmp_path, "data/a.parquet", [{columns[0]: "https://h/1.png?x=1", columns[1]: "A cat.", "id": 1}])
    fetched(tmp_path, "https://h/1.png?x=1", make_image(9), ".webp")
    (sample,) = good(read_all(URLS, tmp_path))
    assert list_turns(sample) == [("human", f"<image>\n{QUESTION}"), ("gpt", "A cat.")]
    assert (sample.file, sample.native_id) == ("data/a.parquet", "https://h/1.png?x=1")
    assert sample.images[0].read() == make_image(9)


def test_img2dataset_shards_are_joined_by_link_and_what_failed_is_missing_by_name(tmp_path: Path) -> None:
    links = [f"https://h/{n}" for n in range(6)]
    put_parquet(tmp_path, "a.parquet", [{"link": link, "caption": f"It is {link}."} for link in links])
    shard(tmp_path, 0, [(links[2], "000000000", "success"), (links[1], "000000001", "failed_to_download")])
    shard(tmp_path, 1, [(links[0], "000010000", "success"), (links[3], "000010001", "success")])
    shard(tmp_path, 2, [(links[4], "../../../etc/passwd", "success")])
    put(tmp_path, "pictures/00000/000000000.jpg", make_image(2))
    put(tmp_path, "pictures/00001/000010000.webp", make_image(0))
    put(tmp_path, "pictures/00003.parquet", b"PAR1 an unfinished shard")
    read = read_all(URLS, tmp_path)
    assert [(s.position, s.images[0].read()) for s in good(read)] == [(0, make_image(0)), (2, make_image(2))]
    assert errors(read) == [(n, "missing_image") for n in (1, 3, 4, 5)]
    assert "https://h/1 was not fetched into pictures/" in messages(read)[0]
    assert "https://h/3 was fetched as pictures/00001/000010001, but is not there" in messages(read)[1]
    keyed(URLS, tmp_path)


def test_img2datasets_webdataset_shards_are_read_where_they_lie(tmp_path: Path) -> None:
    links = [f"https://h/{n}" for n in range(4)]
    put_parquet(tmp_path, "a.parquet", [{"url": link, "caption": "x"} for link in links])
    for number in range(2):
        listed = [(links[2 * number + n], f"{number:05d}000{n}", "success") for n in range(2)]
        shard(tmp_path, number, listed)
        with tarfile.open(tmp_path / "pictures" / f"{number:05d}.tar", "w") as tar:
            for n, (_, key, _) in enumerate(listed):
                for ending, data in ((".webp", make_image(2 * number + n)), (".json", b"{}"), (".txt", b"x")):
                    member = tarfile.TarInfo(key + ending)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    assert [p.read() for s in good(read_all(URLS, tmp_path)) for p in s.images] == [make_image(n) for n in range(4)]


def test_a_fetched_image_that_links_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put_parquet(root, "a.parquet", [{"url": "u", "caption": "x"}])
    fetched(root, "other", make_image())
    secret = tmp_path / "secret.png"
    secret.write_bytes(make_image())
    (root / "pictures" / f"{hashlib.sha256(b'u').hexdigest()}.jpg").symlink_to(secret)
    assert errors(read_all(URLS, root)) == [(0, "outside_root")]


def test_rows_without_a_link_or_caption_are_rejected_alone(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"url": None, "caption": "x"},
        {"url": "u", "caption": None},
        {"url": "u", "caption": " "},
        {"url": "u", "caption": "x" * (MAX_TEXT_CHARS + 1)},
        {"url": "u", "caption": "see <video>"},
        {"url": "u", "caption": "good"},
    ]
    put_parquet(tmp_path, "a.parquet", rows)
    fetched(tmp_path, "u", make_image())
    read = read_all(URLS, tmp_path)
    assert errors(read) == [
        (0, "no_url"),
        (1, "no_caption"),
        (2, "no_caption"),
        (3, "too_large"),
        (4, "marker_in_text"),
    ]
    assert [sample.position for sample in good(read)] == [5]
    keyed(URLS, tmp_path)


def test_other_columns_break_that_file_by_name_and_not_the_next(tmp_path: Path) -> None:
    put_parquet(tmp_path, "a.parquet", [{"href": "u", "caption": "x"}])
    put_parquet(tmp_path, "b.parquet", [{"url": "u", "caption": "x"}])
    put(tmp_path, "c.parquet", b"PAR1 no")
    fetched(tmp_path, "u", make_image())
    read = read_all(URLS, tmp_path)
    assert [s.file for s in good(read)] == ["b.parquet"]
    assert errors(read) == [(0, "broken_file"), (0, "broken_file")]
    assert messages(read)[0] == "has the columns href, caption, but not url or link or URL"
    keyed(URLS, tmp_path)


def test_a_folder_with_images_alone_is_a_source_error(tmp_path: Path) -> None:
    shard(tmp_path, 0, [("u", "1", "success")])
    with pytest.raises(SourceError, match="outside pictures/"):
        read_all(URLS, tmp_path)


def test_heavy_rows_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_columns, "BATCH_BYTES", 4_000_000)
    table = pa.table({"image": [bytes([n]) * 1_000_000 for n in range(64)], "text": ["x"] * 64})
    path = tmp_path / "a.parquet"
    options = {"compression": "none", "use_dictionary": False, "data_page_size": 1 << 20, "write_batch_size": 1}
    pq.write_table(table, path, **options)
    del table
    before, peak = pa.total_allocated_bytes(), 0
    for _ in parquet_columns.iter_rows(path, (("image",), ("text",))):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 16_000_000
    assert sum(1 for _ in parquet_columns.iter_rows(path, (("image",), ("text",)), projection=("text",))) == 64


# Formats that need no module


def test_m3it_is_read_by_its_field_map_with_several_images_and_empty_inputs(tmp_path: Path) -> None:
    encoded = [base64.b64encode(make_image(n, (320, 240), "JPEG")).decode() for n in range(2)]
    rows = [
        {"instruction": "Compare.", "inputs": "Which is brighter?", "image_base64_str": encoded, "outputs": "Second."},
        {
            "instruction": "Describe.",
            "inputs": "",
            "image_base64_str": encoded[:1],
            "outputs": "Blue.",
            "meta_info": {},
        },
        {"instruction": "Describe.", "inputs": None, "image_base64_str": encoded[:1], "outputs": ""},
    ]
    put(tmp_path, "data/reasoning/nlvr/train.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    spec = load_catalog()["m3it_flan"]
    read = list(get_reader(spec.format)(spec, tmp_path))
    first, second = good(read)
    assert list_turns(first)[0] == ("human", "<image>\n<image>\nCompare.\nWhich is brighter?")
    assert [p.read() for p in first.images] == [make_image(n, (320, 240), "JPEG") for n in range(2)]
    assert list_turns(second) == [("human", "<image>\nDescribe."), ("gpt", "Blue.")]
    assert errors(read) == [(2, "missing_field")]


def test_wildvision_is_read_by_its_field_map_with_and_without_an_image(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."}]
    rows = [
        {
            "conversation_id": "c1",
            "model": "m",
            "conversation": talk * 2,
            "image": {"bytes": make_image(), "path": None},
        },
        {
            "conversation_id": "c2",
            "model": "m",
            "conversation": talk[:1],
            "image": {"bytes": make_image(), "path": None},
        },
    ]
    put_parquet(tmp_path, "data/a.parquet", rows)
    spec = load_catalog()["wildvision_chat"]
    read = list(get_reader(spec.format)(spec, tmp_path))
    (sample,) = good(read)
    assert sample.native_id == "c1"
    assert [turn for _, turn in list_turns(sample)] == ["<image>\nWhat?", "A cat.", "What?", "A cat."]
    assert errors(read) == [(1, "no_answer")]


def test_finevision_rows_are_the_cauldrons_and_their_ratings_are_left(tmp_path: Path) -> None:
    text = {"user": "What?", "assistant": "A cat."}
    rows = [
        {"images": [{"bytes": make_image(), "path": None}], "texts": [text, text], "relevance_ratings": [5, 1]},
        {"images": [], "texts": [text], "relevance_ratings": [4]},
    ]
    put_parquet(tmp_path, "a.parquet", [{**row, "source": "x", "relevance_min": 1} for row in rows])
    read = list(get_reader("finevision_parquet")(source("cauldron_parquet"), tmp_path))
    assert [(len(s.turns), len(s.images)) for s in good(read)] == [(4, 1), (2, 0)]
