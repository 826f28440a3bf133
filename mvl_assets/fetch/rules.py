"""Which files of a repository a source needs, and what a person puts into its folder when nobody can fetch them.

One rule a format: `row_patterns` are the files that hold the rows (without one of them the source is not there), `media_patterns` the
pictures and archives they refer to, `description` the same in words. A pattern's `*` also matches across folders. A catalog
entry that needs other files says so itself, with `files:` in its `hub` entry.

A config that is a folder of the repository becomes the source's folder (`<config>/train-00000.parquet` in
lmms-lab/LLaVA-OneVision-Data and HuggingFaceM4/the_cauldron). All other files keep the place they have there. Where all
sub-datasets share one file of rows, the config is what the reader picks them by, and the entry names its files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from mvl_assets.config.catalog import Format, SourceSpec

ARCHIVE_PATTERNS = ("*.tar", "*.tar.*", "*.tar_*", "*.tgz", "*.zip", "*.zip.*", "*.z[0-9][0-9]")
VIDEO_PATTERNS = ("*.mp4", "*.MP4", "*.mkv", "*.webm", "*.avi", "*.mov")
JSON_PATTERNS = ("*.json", "*.jsonl")
NON_DATA_FILES = frozenset({"dataset_infos.json", "dataset_info.json"})


@dataclass(frozen=True, slots=True)
class FileRule:
    """What a format's files look like."""

    row_patterns: tuple[str, ...]
    description: str
    media_patterns: tuple[str, ...] = ()


FILE_RULES: dict[Format, FileRule] = {
    "llava_json": FileRule(
        JSON_PATTERNS, "the *.json or *.jsonl of conversations and the pictures its `image` names", ARCHIVE_PATTERNS
    ),
    "llava_parquet": FileRule(("*.parquet",), "the *.parquet files"),
    "cauldron_parquet": FileRule(("*.parquet",), "the *.parquet files"),
    "cambrian_jsonl": FileRule(
        JSON_PATTERNS,
        "the *.jsonl of all subsets or of this one and its picture tars, or their folders",
        ARCHIVE_PATTERNS,
    ),
    "finevision_parquet": FileRule(("*.parquet",), "the *.parquet files"),
    "m4_instruct": FileRule(("*.json",), "the annotations *.json and the picture zips", ARCHIVE_PATTERNS),
    "llava_video": FileRule(
        JSON_PATTERNS,
        "the *.json or *.jsonl files and the video tars, or their folders",
        (*ARCHIVE_PATTERNS, *VIDEO_PATTERNS),
    ),
    "vqa_v2": FileRule(
        ("*.json",), "the questions and annotations *.json and the folders of pictures", ARCHIVE_PATTERNS
    ),
    "coco": FileRule(("*.json",), "annotations/instances_*.json and the folders of pictures", ARCHIVE_PATTERNS),
    "coco_captions": FileRule(("*.json",), "annotations/captions_*.json and the folders of pictures", ARCHIVE_PATTERNS),
    "gqa": FileRule(("*.json",), "the *_questions.json and the folder of pictures", ARCHIVE_PATTERNS),
    "visual_genome": FileRule(
        ("*.json", "*.json.zip"), "the *.json files and the folders of pictures", ARCHIVE_PATTERNS
    ),
    "doc_vqa": FileRule(("*.json",), "the *.json of questions and the folder of pictures", ARCHIVE_PATTERNS),
    "ocr_vqa": FileRule(("*.json",), "dataset.json and the folder of pictures", ARCHIVE_PATTERNS),
    "icdar_text": FileRule(
        ("*.json", "*.txt", "*.zip"), "one text or JSON file a picture, and the pictures", ARCHIVE_PATTERNS
    ),
    "science_qa": FileRule(("*.json",), "problems.json, pid_splits.json and the folders of pictures", ARCHIVE_PATTERNS),
    "wit": FileRule(("*.tsv", "*.tsv.gz"), "the *.tsv files and the pictures they name", ARCHIVE_PATTERNS),
    "localized_narratives": FileRule(("*.jsonl",), "the *.jsonl files and the pictures", ARCHIVE_PATTERNS),
    "ref_coco": FileRule(("*.p", "*.json", "*.zip"), "refs(*).p, instances.json and the pictures", ARCHIVE_PATTERNS),
    "url_captions": FileRule(("*.parquet",), "the *.parquet of addresses and captions, and the pictures"),
    "video_choice": FileRule(
        ("*.parquet", *JSON_PATTERNS), "the table of questions and the videos", (*ARCHIVE_PATTERNS, *VIDEO_PATTERNS)
    ),
    "video_instruct": FileRule(
        ("*.json",), "the *.json of questions and the videos", (*ARCHIVE_PATTERNS, *VIDEO_PATTERNS)
    ),
    "frame_folders": FileRule(
        JSON_PATTERNS, "the *.json of conversations and one folder of frames a video", ARCHIVE_PATTERNS
    ),
    "table_text": FileRule(("*.json",), "the *.json files of tables and questions"),
    "screenshot_html": FileRule(
        ("*.html", "*.parquet"), "one *.html and one picture of the same name a page", ("*.png",)
    ),
    "mammoth_release": FileRule(("*.json",), "the *.json files and the media tars", ARCHIVE_PATTERNS),
    "records": FileRule(
        (*JSON_PATTERNS, "*.csv", "*.tsv", "*.parquet"),
        "the files its `records` map names, and the pictures",
        ARCHIVE_PATTERNS,
    ),
}


def get_file_rule(source: SourceSpec) -> FileRule:
    """The rule of the source's format; any table of rows and any archive where the format has none, or is unknown.

    The rows of a `records` source are the files that its map names.
    """
    rule = FILE_RULES.get(source.format or "records", FILE_RULES["records"])
    if source.records is None:
        return rule
    pattern = source.records.files
    return replace(rule, row_patterns=(pattern, pattern.removeprefix("**/")))


def select_files(source: SourceSpec, names: Iterable[str]) -> dict[str, str]:
    """Those of a repository's file names that the source needs: place below its folder -> name in the repository.

    Empty when no file holding rows is among them. Hidden files (`.gitattributes`, and the 4 GB `.git.tar.gz` that one
    repository really holds) are never chosen.
    """
    assert source.hub is not None
    rule, config = get_file_rule(source), source.hub.config
    visible = sorted(n for n in names if not any(part.startswith(".") for part in PurePosixPath(n).parts))
    if source.hub.files:
        return {n: n for n in visible if _matches_any(n, source.hub.files)}
    data_files = [n for n in visible if PurePosixPath(n).name not in NON_DATA_FILES]
    if config is None:
        return _require_row_files(
            rule, {n: n for n in data_files if _matches_any(n, rule.row_patterns + rule.media_patterns)}
        )
    prefix = f"{config}/"
    config_files = {n.removeprefix(prefix): n for n in data_files if n.startswith(prefix)}
    return _require_row_files(
        rule,
        {
            relative_path: n
            for relative_path, n in config_files.items()
            if _matches_any(relative_path, rule.row_patterns + rule.media_patterns)
        },
    )


def find_unmatched_patterns(source: SourceSpec, names: Iterable[str]) -> list[str]:
    """Those of the entry's own patterns that no file of the repository is called by."""
    file_names = list(names)
    patterns = source.hub.files if source.hub is not None else ()
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in file_names)]


def format_manual_instructions(source: SourceSpec) -> str:
    """What to put where by hand, in a line."""
    note = source.evidence["hub"].note if "hub" in source.evidence else None
    origin_note = f"; {note.removeprefix('listed: ')}" if note and source.hub is None else ""
    return (
        f"put the source's files into {source.root}: {get_file_rule(source).description} ({source.title}{origin_note}); "
        "or name their folder with `path:` in its catalog entry"
    )


def _require_row_files(rule: FileRule, selected: dict[str, str]) -> dict[str, str]:
    return selected if any(_matches_any(relative_path, rule.row_patterns) for relative_path in selected) else {}


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
