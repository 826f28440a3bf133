"""Which files of a repository a source needs, and what a person puts into its folder when nobody can fetch them.

One rule a format: `rows` are the files that hold the rows (without one of them the source is not there), `beside` the
pictures and archives they refer to, `what` the same in words. A pattern's `*` also matches across folders. A catalog
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

ARCHIVES = ("*.tar", "*.tar.*", "*.tar_*", "*.tgz", "*.zip", "*.zip.*", "*.z[0-9][0-9]")
VIDEOS = ("*.mp4", "*.MP4", "*.mkv", "*.webm", "*.avi", "*.mov")
JSON = ("*.json", "*.jsonl")
NOT_DATA = frozenset({"dataset_infos.json", "dataset_info.json"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What a format's files look like."""

    rows: tuple[str, ...]
    what: str
    beside: tuple[str, ...] = ()


RULES: dict[Format, Rule] = {
    "llava_json": Rule(JSON, "the *.json or *.jsonl of conversations and the pictures its `image` names", ARCHIVES),
    "llava_parquet": Rule(("*.parquet",), "the *.parquet files"),
    "cauldron_parquet": Rule(("*.parquet",), "the *.parquet files"),
    "cambrian_jsonl": Rule(
        JSON, "the *.jsonl of all subsets or of this one and its picture tars, or their folders", ARCHIVES
    ),
    "finevision_parquet": Rule(("*.parquet",), "the *.parquet files"),
    "m4_instruct": Rule(("*.json",), "the annotations *.json and the picture zips", ARCHIVES),
    "llava_video": Rule(JSON, "the *.json or *.jsonl files and the video tars, or their folders", (*ARCHIVES, *VIDEOS)),
    "vqa_v2": Rule(("*.json",), "the questions and annotations *.json and the folders of pictures", ARCHIVES),
    "coco": Rule(("*.json",), "annotations/instances_*.json and the folders of pictures", ARCHIVES),
    "coco_captions": Rule(("*.json",), "annotations/captions_*.json and the folders of pictures", ARCHIVES),
    "gqa": Rule(("*.json",), "the *_questions.json and the folder of pictures", ARCHIVES),
    "visual_genome": Rule(("*.json", "*.json.zip"), "the *.json files and the folders of pictures", ARCHIVES),
    "doc_vqa": Rule(("*.json",), "the *.json of questions and the folder of pictures", ARCHIVES),
    "ocr_vqa": Rule(("*.json",), "dataset.json and the folder of pictures", ARCHIVES),
    "icdar_text": Rule(("*.json", "*.txt", "*.zip"), "one text or JSON file a picture, and the pictures", ARCHIVES),
    "science_qa": Rule(("*.json",), "problems.json, pid_splits.json and the folders of pictures", ARCHIVES),
    "wit": Rule(("*.tsv", "*.tsv.gz"), "the *.tsv files and the pictures they name", ARCHIVES),
    "localized_narratives": Rule(("*.jsonl",), "the *.jsonl files and the pictures", ARCHIVES),
    "ref_coco": Rule(("*.p", "*.json", "*.zip"), "refs(*).p, instances.json and the pictures", ARCHIVES),
    "url_captions": Rule(("*.parquet",), "the *.parquet of addresses and captions, and the pictures"),
    "video_choice": Rule(("*.parquet", *JSON), "the table of questions and the videos", (*ARCHIVES, *VIDEOS)),
    "video_instruct": Rule(("*.json",), "the *.json of questions and the videos", (*ARCHIVES, *VIDEOS)),
    "frame_folders": Rule(JSON, "the *.json of conversations and one folder of frames a video", ARCHIVES),
    "table_text": Rule(("*.json",), "the *.json files of tables and questions"),
    "screenshot_html": Rule(("*.html", "*.parquet"), "one *.html and one picture of the same name a page", ("*.png",)),
    "mammoth_release": Rule(("*.json",), "the *.json files and the media tars", ARCHIVES),
    "records": Rule(
        (*JSON, "*.csv", "*.tsv", "*.parquet"), "the files its `records` map names, and the pictures", ARCHIVES
    ),
}


def rule_of(source: SourceSpec) -> Rule:
    """The rule of the source's format; any table of rows and any archive where the format has none, or is unknown.

    The rows of a `records` source are the files that its map names.
    """
    rule = RULES.get(source.format or "records", RULES["records"])
    if source.records is None:
        return rule
    pattern = source.records.files
    return replace(rule, rows=(pattern, pattern.removeprefix("**/")))


def choose(source: SourceSpec, names: Iterable[str]) -> dict[str, str]:
    """Those of a repository's file names that the source needs: place below its folder -> name in the repository.

    Empty when no file holding rows is among them. Hidden files (`.gitattributes`, and the 4 GB `.git.tar.gz` that one
    repository really holds) are never chosen.
    """
    assert source.hub is not None
    rule, config = rule_of(source), source.hub.config
    visible = sorted(n for n in names if not any(part.startswith(".") for part in PurePosixPath(n).parts))
    if source.hub.files:
        return {n: n for n in visible if _matches(n, source.hub.files)}
    data = [n for n in visible if PurePosixPath(n).name not in NOT_DATA]
    if config is None:
        return _with_rows(rule, {n: n for n in data if _matches(n, rule.rows + rule.beside)})
    prefix = f"{config}/"
    inside = {n.removeprefix(prefix): n for n in data if n.startswith(prefix)}
    return _with_rows(rule, {place: n for place, n in inside.items() if _matches(place, rule.rows + rule.beside)})


def without_a_file(source: SourceSpec, names: Iterable[str]) -> list[str]:
    """Those of the entry's own patterns that no file of the repository is called by."""
    found = list(names)
    patterns = source.hub.files if source.hub is not None else ()
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in found)]


def supply(source: SourceSpec) -> str:
    """What to put where by hand, in a line."""
    note = source.evidence["hub"].note if "hub" in source.evidence else None
    listed = f"; {note.removeprefix('listed: ')}" if note and source.hub is None else ""
    return (
        f"put the source's files into {source.root}: {rule_of(source).what} ({source.title}{listed}); "
        "or name their folder with `path:` in its catalog entry"
    )


def _with_rows(rule: Rule, found: dict[str, str]) -> dict[str, str]:
    return found if any(_matches(place, rule.rows) for place in found) else {}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
