"""The shipped catalog says what the paper says, and a broken one says what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from mvl_assets.config import catalog
from mvl_assets.config.catalog import (
    CATEGORIES,
    SOURCES_DIR,
    SourceSpec,
    list_partition_keys,
    load_catalog,
    read_catalog,
)
from mvl_assets.demo_data.recipes import RECIPES
from mvl_assets.errors import MvlError

# Per category: group A, B, C (counted from figures A3 to A5 of arXiv 2412.05237v2, categories from figure 3).
GROUPS = {
    "general": (11, 10, 11),
    "ocr": (9, 8, 6),
    "chart": (11, 9, 3),
    "caption": (0, 6, 7),
    "domain": (2, 10, 0),
    "code_math": (6, 14, 3),
    "detection": (0, 3, 5),
    "multi_image": (10, 0, 0),
    "video": (9, 0, 0),
}
# Facts a reader of the catalog needs the evidence for.
ALWAYS_EVIDENT = (
    "title",
    "category",
    "group",
    "modality",
    "format",
    "hub",
    "family",
    "license",
    "expected",
    "benchmarks",
)

ENTRY = f"""\
type: {catalog.COMPONENT_TYPE}
attributes:
  slug: one
  title: One
  category: general
  group: A
  modality: single_image
  format: llava_json
"""


def inside() -> list[SourceSpec]:
    return [s for s in load_catalog().values() if not s.supplementary]


def folder_with(tmp_path: Path, text: str, category: str = "general") -> Path:
    """A catalog folder that holds one file."""
    place = tmp_path / "sources" / category
    place.mkdir(parents=True, exist_ok=True)
    (place / "defs.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "sources"


def error_of(folder: Path) -> str:
    with pytest.raises(MvlError) as caught:
        read_catalog(folder)
    return caught.value.message


def test_there_are_153_sources_in_the_papers_groups() -> None:
    assert len(inside()) == 153
    assert Counter(s.group for s in inside()) == {"A": 58, "B": 60, "C": 35}


@pytest.mark.parametrize("category", GROUPS)
def test_every_category_has_the_papers_groups(category: str) -> None:
    result = Counter(s.group for s in inside() if s.category == category)
    assert (result["A"], result["B"], result["C"]) == GROUPS[category]


def test_most_sources_are_single_image() -> None:
    assert Counter(s.modality for s in inside()) == {"single_image": 134, "multi_image": 10, "video": 9}


def test_outside_the_153_are_language_alignment_the_release_and_tabmwp_itself() -> None:
    outside = [s for s in load_catalog().values() if s.supplementary]
    assert Counter(s.category for s in outside) == {"language": 6, "alignment": 1, "released": 1, "code_math": 1}
    assert {"tabmwp", "lcs_558k", "mammoth_vl_instruct_12m"} < {s.slug for s in outside}
    assert all(s.modality == "text" for s in outside if s.category == "language")


def test_partitions_are_the_sources_of_group_a_and_b_and_nothing_of_group_c() -> None:
    assert "tabmwp" in list_partition_keys("code_math")
    assert len(list_partition_keys("code_math")) == 6 + 14 + 1
    assert len(list_partition_keys("language")) == 6
    assert list_partition_keys("alignment") == ("lcs_558k",)
    assert list_partition_keys("released") == ()
    listed = {s for c in CATEGORIES for s in list_partition_keys(c)}
    assert {load_catalog()[s].group for s in listed} == {"A", "B"}
    # Dagster stops comparing versions of an edge at 100 upstream partitions.
    assert max(len(list_partition_keys(c)) for c in CATEGORIES) < 100


def test_the_catalog_is_ordered_by_category_then_as_in_the_file() -> None:
    order = [CATEGORIES.index(s.category) for s in load_catalog().values()]
    assert order == sorted(order)
    text = (SOURCES_DIR / "chart" / "defs.yaml").read_text(encoding="utf-8")
    assert [s.slug for s in load_catalog().values() if s.category == "chart"] == re.findall(
        r"^  slug: (\S+)$", text, re.M
    )


@pytest.mark.parametrize("slug", load_catalog())
def test_every_value_says_how_it_is_known_and_an_unknown_one_is_null(slug: str) -> None:
    spec = load_catalog()[slug]
    assert set(ALWAYS_EVIDENT) <= set(spec.evidence)
    for field, evidence in spec.evidence.items():
        if field == "benchmarks":
            assert bool(spec.benchmarks) == (evidence.basis != "unknown"), field
        else:
            assert (getattr(spec, field) is None) == (evidence.basis == "unknown"), field


def test_sources_that_share_a_file_of_rows_say_which_part_is_theirs() -> None:
    shared: dict[tuple[str, str], list[str | None]] = {}
    for source in load_catalog().values():
        hub = source.hub
        for file in hub.files if hub is not None else ():
            if hub is not None and not re.search(r"[*?[]", file):
                shared.setdefault((hub.repo, file), []).append(hub.config)
    parts = {file: configs for file, configs in shared.items() if len(configs) > 1}
    assert len(parts[("lmms-lab/M4-Instruct-Data", "m4_instruct_annotations.json")]) == 9
    assert len(parts[("nyu-visionx/Cambrian-10M", "jsons/Cambrian10M.jsonl")]) == 10
    assert all(None not in configs and len(set(configs)) == len(configs) for configs in parts.values())


def test_every_rewritten_source_has_a_prompt_family_and_every_dropped_one_a_reason() -> None:
    assert all(s.family for s in inside() if s.group == "B")
    assert all(s.reason for s in inside() if s.group == "C")


def test_licence_of_an_aggregators_card_is_not_used() -> None:
    noted = [s for s in inside() if "aggregator card" in (s.evidence["license"].note or "")]
    assert len(noted) == 35
    assert all(s.license is None for s in noted)


def test_the_benchmarks_among_the_sources_are_marked() -> None:
    marked = {s.slug for s in inside() if any(b.relation == "is_benchmark" for b in s.benchmarks)}
    assert marked == {"video_mme", "egoschema", "math_vision", "design2code"}
    assert all(s.benchmarks[0].name == "MathVista" for s in inside() if s.slug.endswith("_mathv360k"))


@pytest.mark.parametrize("slug", RECIPES)
def test_every_demo_recipe_belongs_to_a_declared_source(slug: str) -> None:
    assert slug in load_catalog()


def test_no_line_of_the_catalog_is_too_long_to_read() -> None:
    long = [
        f"{p}:{n}" for p in SOURCES_DIR.glob("*/defs.yaml") for n, line in enumerate(p.open(), 1) if len(line) > 161
    ]
    assert long == []


def test_root_of_a_source_without_a_path_is_in_the_raw_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    assert load_catalog()["tabmwp"].root == tmp_path / "raw" / "tabmwp"


def test_a_slug_declared_twice_names_both_places(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, f"{ENTRY}---\n{ENTRY}")
    message = error_of(folder)
    assert f"{folder}/general/defs.yaml:12: the source 'one' is declared twice" in message
    assert f"{folder}/general/defs.yaml:3" in message


def test_a_slug_declared_in_two_categories_is_found(tmp_path: Path) -> None:
    folder_with(tmp_path, ENTRY)
    folder = folder_with(tmp_path, ENTRY.replace("category: general", "category: ocr"), "ocr")
    assert "ocr/defs.yaml:3: the source 'one' is declared twice" in error_of(folder)


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("  title: One\n", "  title: One\n  titel: One\n"), 5, "`titel`: unknown key"),
        (("  title: One\n", "  title: One\n  expected: {count: many, unit: rows}\n"), 5, "`expected.count`"),
        (("  title: One\n", "  title: One\n  supplementary: 'yes'\n"), 5, "`supplementary`"),
        (("  title: One\n", "  title: 1\n"), 4, "`title`"),
        (("  group: A\n", "  group: D\n"), 6, "`group`"),
        (("  group: A\n", "  group: B\n"), 2, "prompt `family`"),
        (("  group: A\n", "  group: C\n"), 2, "`reason`"),
        (("  format: llava_json\n", "  format: F1\n"), 8, "`format`"),
        (("  title: One\n", ""), 2, "`title`: Field required"),
        (("  title: One\n", "  titel: One\n"), 4, "`titel`: unknown key"),
        (
            ("  title: One\n", "  title: One\n  evidence: {titel: {basis: read}}\n"),
            2,
            "fields that the entry does not have",
        ),
        (("  category: general\n", "  category: ocr\n"), 5, "it is in the folder 'general'"),
        (("attributes:\n", "atributes: 1\nattributes:\n"), 2, "unknown key `atributes`"),
        ((catalog.COMPONENT_TYPE, "mvl_assets.components.Source"), 1, "`type` must be"),
    ],
)
def test_a_wrong_entry_is_named_with_file_line_and_slug(
    tmp_path: Path, change: tuple[str, str], line: int, said: str
) -> None:
    assert change[0] in ENTRY
    folder = folder_with(tmp_path, ENTRY.replace(*change))
    message = error_of(folder)
    assert message.startswith(f"{folder}/general/defs.yaml:{line}: source 'one': "), message
    assert said in message


def test_duplicate_key_is_an_error(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, ENTRY + "  title: Two\n")
    assert f"{folder}/general/defs.yaml:9: the key 'title' is given twice (first in line 4)" in error_of(folder)


def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, ENTRY + "  hub: {repo: a/b\n")
    assert re.match(rf"{re.escape(str(folder))}/general/defs\.yaml:\d+: ", error_of(folder))


def test_a_tag_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, ENTRY + "  url: !!python/object/apply:os.getcwd []\n")
    assert "python/object/apply" in error_of(folder)


def test_a_document_without_attributes_is_named_with_its_line(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, ENTRY + "---\njust: words\n")
    assert "general/defs.yaml:10: an entry is" in error_of(folder)


def test_folder_that_is_not_a_category_is_an_error(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, ENTRY, "ocrr")
    assert "not a category: ocrr" in error_of(folder)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ({"files": "a.json", "shape": "list", "question": "{q}"}, "`question` and `answer` are needed"),
        ({"files": "a.json", "shape": "list", "turns": "t", "question": "{q}"}, "either `turns`"),
        ({"files": "a.json", "shape": "dict_of_id", "id": "i", "turns": "t"}, "leave `id` out"),
        ({"files": "a.csv", "shape": "csv", "key": "data", "turns": "t"}, "`key` has no meaning"),
        (
            {"files": "a.csv", "shape": "csv", "turns": "t", "images": ["{p}"], "image_field": "p"},
            "either `images` or `image_field`",
        ),
        ({"files": "a.ini", "shape": "ini", "turns": "t"}, "`records.shape`"),
    ],
)
def test_a_field_map_that_contradicts_itself_is_refused(tmp_path: Path, records: dict, said: str) -> None:
    entry = yaml.safe_load(ENTRY)
    entry["attributes"] |= {"format": "records", "records": records}
    assert said in error_of(folder_with(tmp_path, yaml.safe_dump(entry, sort_keys=False)))


def test_field_map_is_read_from_an_entry(tmp_path: Path) -> None:
    text = ENTRY.replace("llava_json", "records") + (
        '  records:\n    files: \'*.csv\'\n    shape: csv\n    question: "{q}"\n    answer: "{a}"\n'
        '    images: ["img/{file}"]\n'
    )
    spec = read_catalog(folder_with(tmp_path, text))["one"]
    assert spec.records is not None and spec.records.images == ("img/{file}",)
