"""What a person would look at before sorting a source into a group: the numbers are right, and the rule fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.catalog import load_catalog
from mvl_assets.curation.screening import (
    ImageSizes,
    Quantiles,
    ScreeningReport,
    count_words,
    detect_script,
    screen_source,
    suggest_group,
)
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.lake_queries.screening import sample_by_hash
from tests.lake.rows import put_samples, sample

AS_THEY_ARE = ["allava_laion", "ai2d_gpt4v", "robut_wtq_cauldron_llava_format", "nlvr2", "numinamath"]
REWRITTEN = [
    "chartqa_cauldron_llava_format",
    "st_vqa_cauldron_llava_format",
    "geo170k",
    "tabmwp",
    "vsr_cauldron_llava_format",
    "sharegpt4v",
]


def drawn(number: int, **said: Any) -> dict[str, Any]:
    return sample("drawn", number, content_hash=compute_digest("content", number), **said)


def test_screening_samples_the_smallest_ids(lake: Lake) -> None:
    rows = [drawn(n) for n in range(20)]
    put_samples(lake, "drawn", rows)
    few, many = (sample_by_hash(lake, "drawn", count, ["native_id"]) for count in (5, 12))
    ids = sorted(row["sample_id"] for row in rows)
    assert [row["sample_id"] for row in few.rows] == ids[:5]
    assert [row["sample_id"] for row in many.rows] == ids[:12]
    assert few.n_samples == many.n_samples == 20
    assert few.rows[0].keys() == {"sample_id", "native_id"}


def test_screening_measures_only_current_versions(lake: Lake) -> None:
    put_samples(
        lake,
        "drawn",
        [
            drawn(0, answer="of old"),
            drawn(0, revision=2, answer="corrected") | {"content_hash": compute_digest("new")},
            drawn(1),
            drawn(1, revision=2, withdrawn=True, conversations=[]),
        ],
    )
    put_samples(lake, "other", [sample("other", 0)])
    result = sample_by_hash(lake, "drawn", 10, ["conversations"])
    assert [row["conversations"][1]["value"] for row in result.rows] == ["corrected"]
    assert result.n_samples == 1


def test_copies_are_counted_over_the_whole_source(lake: Lake) -> None:
    same = compute_digest("same")
    put_samples(lake, "drawn", [drawn(n) | ({"content_hash": same} if n < 3 else {}) for n in range(6)])
    assert sample_by_hash(lake, "drawn", 1, ["file"]).n_copies == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Yes.", 1),
        ("3.5", 1),
        ("A red car - and a dog.", 6),
        ("", 0),
        ("…", 0),
        ("这是一只猫。", 5),
        ("猫 and dog", 3),
    ],
)
def test_words_are_counted_in_languages_with_and_without_spaces(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("<image>\nWas ist das für ein Tier?", "Latin"),
        ("<image>\n这是什么？", "CJK"),
        ("これは猫です", "CJK"),
        ("고양이입니다", "CJK"),
        ("Что это?", "other"),
        ("ما هذا؟", "other"),
        ("<image>\n3 + 4 = 7", "none"),
    ],
)
def test_script_of_a_row_is_that_of_most_letters(text: str, script: str) -> None:
    assert detect_script(text) == script


def test_screening_measures_the_rows(lake: Lake) -> None:
    def image(number: int, width: int, height: int) -> ImageRow:
        data = str(number).encode()  # no picture at all: nothing may be decoded
        return ImageRow(compute_digest(data), data, "PNG", width, height, 1, "RGB", None)

    pictures = [image(0, 640, 480), image(1, 100, 480), image(2, 4000, 500)]
    lake.get_images("drawn").insert(pictures)
    two = [
        {"from": who, "value": word} for who, word in (("human", "?"), ("gpt", "No"), ("human", "?"), ("gpt", "no."))
    ]
    rows = [
        drawn(0, question="这是什么", answer="猫", pictures=pictures[:1]),
        drawn(1, answer="a b c d", pictures=pictures[:2]),
        drawn(2, conversations=two, pictures=pictures[2:]),
    ]
    put_samples(lake, "drawn", rows)
    result = screen_source(lake, "drawn", n_examples=2)
    assert (result.n_rows, result.n_total, result.n_copies, result.n_answers) == (3, 3, 0, 4)
    assert result.answer_chars == Quantiles(median=2.5, p90=3) and result.answer_words == Quantiles(median=1, p90=1)
    assert result.one_word_share == 0.75 and result.most_frequent_share == 0.5, "`No` and `no.` are one answer"
    assert result.answers_per_sample == Quantiles(median=1, p90=1)
    assert result.script_shares == {"Latin": pytest.approx(2 / 3), "CJK": pytest.approx(1 / 3)}
    assert result.image_sizes == ImageSizes(
        3, median_width=640, median_height=480, min_side=100, max_side=4000, out_of_range_share=pytest.approx(2 / 3)
    )
    assert len(result.examples) == 2


def test_screening_of_a_source_without_rows_is_empty(lake: Lake) -> None:
    result = screen_source(lake, "drawn")
    assert (result.n_rows, result.n_total, result.n_answers, result.image_sizes, result.examples) == (0, 0, 0, None, [])


def looked(words: float, one_word: float = 0.0, most_frequent: float = 0.1) -> ScreeningReport:
    words_, turns = Quantiles(words, words), Quantiles(1, 1)
    return ScreeningReport(
        500, 500, 0, 500, Quantiles(9, 9), words_, one_word, most_frequent, turns, {"Latin": 1.0}, None, []
    )


def test_suggested_group_follows_answer_lengths() -> None:
    assert suggest_group(looked(40), "general").group == "A"
    assert suggest_group(looked(3), "general").group == "B"
    assert suggest_group(looked(40, one_word=0.6), "general").group == "B"
    assert suggest_group(looked(1, one_word=1.0, most_frequent=0.8), "general").group == "C"
    assert "3 words" in suggest_group(looked(3), "general").reason


def test_captions_are_suggested_for_group_b_and_brief_ones_for_c() -> None:
    assert suggest_group(looked(150), "caption").group == "B"
    assert suggest_group(looked(9), "caption").group == "C"


@pytest.mark.parametrize("slug", [*AS_THEY_ARE, *REWRITTEN])
def test_screening_demo_data_suggests_the_declared_group(lake: Lake, tmp_path: Path, slug: str) -> None:
    write_demo_sources(tmp_path, [slug], n_rows=24)
    spec = load_catalog()[slug]
    ingest_source(lake, spec, tmp_path / slug, run_id="run")
    suggestion = suggest_group(screen_source(lake, slug), spec.category)
    assert suggestion.group == spec.group == ("A" if slug in AS_THEY_ARE else "B"), suggestion.reason
