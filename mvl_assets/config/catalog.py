"""What a source is, and the catalog of all declared sources.

Belongs here: the fields of a source (`SourceSpec`) and reading them from `defs/sources/<category>/defs.yaml`, where one
YAML document declares one source. The same documents are what Dagster loads; `components/source_dataset.py` turns a
`SourceSpec` into an asset. Does not belong here: reading the source's own files (`readers/`), anything of Dagster.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mvl_assets.config.settings import load_settings
from mvl_assets.config.strict_yaml import YamlDocument, iter_documents
from mvl_assets.errors import MvlError

SOURCES_DIR = Path(__file__).resolve().parents[1] / "defs" / "sources"
COMPONENT_TYPE = "mvl_assets.components.source_dataset.SourceDataset"

Category = Literal[
    "general",
    "ocr",
    "chart",
    "caption",
    "domain",
    "code_math",
    "detection",
    "multi_image",
    "video",
    "language",
    "alignment",
    "released",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)
Group = Literal["A", "B", "C"]
Modality = Literal["single_image", "multi_image", "video", "text"]
Family = Literal["general", "ocr", "chart", "math", "caption", "domain", "detection", "code"]
Format = Literal[
    "llava_json",
    "llava_parquet",
    "cauldron_parquet",
    "finevision_parquet",
    "cambrian_jsonl",
    "m4_instruct",
    "llava_video",
    "vqa_v2",
    "coco",
    "coco_captions",
    "gqa",
    "visual_genome",
    "doc_vqa",
    "ocr_vqa",
    "icdar_text",
    "science_qa",
    "wit",
    "localized_narratives",
    "ref_coco",
    "url_captions",
    "video_choice",
    "video_instruct",
    "frame_folders",
    "table_text",
    "screenshot_html",
    "mammoth_release",
    "records",
]


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HubDataset(_StrictModel):
    """A dataset repository on the Hugging Face hub, and the config (subset) inside it."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    config: str | None = None
    files: tuple[str, ...] = ()
    """Patterns of the files the source needs (`*` also matches across folders), instead of the format's own rule."""

    @field_validator("files", mode="before")
    @classmethod
    def _coerce_list_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class ExpectedSize(_StrictModel):
    """How many items the source is said to hold. Only `rows` can be compared with what a reader finds."""

    count: int = Field(gt=0)
    unit: Literal["rows", "images", "qa"]


class Evidence(_StrictModel):
    """How a value of the entry came to be known."""

    basis: Literal["read", "computed", "inferred", "general_knowledge", "unknown"]
    note: str | None = None


class BenchmarkRelation(_StrictModel):
    """A relation to an evaluation benchmark: the source *is* it, or both were built from the same base sets."""

    name: str
    relation: Literal["is_benchmark", "shares_origin"]


class RecordsMapping(_StrictModel):
    """How the `records` reader makes a conversation of one record: the way in for any table, without code.

    `question`, `answer` and `pictures` are templates: `{field}` (or `{field.inner}`) stands for a value of the record,
    `{field:012d}` for a whole number padded with zeros, everything else for itself, `{{` for a brace. `{id}` is the
    native id. The other keys are plain field names; a record in which such a field is absent, null or empty goes
    without that part. Worked examples: `docs/add_a_source.md`.

    ```yaml
    records:
      files: problems.json
      shape: dict_of_id
      question: "{question}"
      answer: "{answer}"
      choices: choices
      unit: unit
      pictures: ["tables/{id}.png"]
    ```
    """

    files: str
    """Glob below the source's folder; matches are read in sorted order."""
    shape: Literal["list", "dict_of_id", "jsonl", "csv", "tsv", "parquet"]
    """`list`: JSON array of objects. `dict_of_id`: JSON object, id -> object."""
    quoted: bool = True
    """Of `csv` and `tsv`: whether a cell may stand in quotes (RFC 4180). False: a quote is a character like any other,
    as in the TSV of captions that begin with one."""
    key: str | None = None
    """Dotted path to the list or object inside the JSON file (`data.items`); null = the file itself. A file that is a
    bare list is read whatever the key says."""
    id: str | None = None
    """Field of the native id. `dict_of_id` uses its keys; elsewhere null = rows are named by file and position."""
    question: str | None = None
    answer: str | None = None
    choices: str | None = None
    """Field of the answer options: a list, or an object label -> option. They follow the question, lettered."""
    answer_is: Literal["text", "index", "letter"] = "text"
    """How the answer is written when there are choices: as text, as an index from 0, or as the option's letter."""
    context: str | None = None
    """Field of a text that goes before the question."""
    hint: str | None = None
    """Field of a text that goes after the question."""
    unit: str | None = None
    """Field of the unit the answer is asked in; it follows the question."""
    pairs: str | None = None
    """Field of a list of objects, each one question and answer of the same conversation; `question` and `answer` (and
    `choices`, `hint`, ...) are then filled from each of them, and from the record where it lacks a field."""
    pictures: tuple[str, ...] = ()
    """Templates of picture paths, in the order of their markers. They are looked for beside the record's file and in
    the source's folder, in each of them also in `images` and `picture_folders`. Of a web address the longest end of its
    path that is there counts (`http://host/a/b.jpg`: `a/b.jpg`, then `b.jpg`); nothing is fetched."""
    picture_folders: tuple[str, ...] = ()
    """More folders to look in, such as COCO's `train2017` and `val2017`."""
    picture_field: str | None = None
    """Field that holds the picture itself: bytes, base64 text, a {bytes, path} object, a path, or a list of these."""
    turns: str | None = None
    """Field of a whole conversation (list of from/value or role/content objects), instead of question and answer."""

    @field_validator("pictures", "picture_folders", mode="before")
    @classmethod
    def _coerce_list_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _validate_text_and_image_fields(self) -> RecordsMapping:
        if self.turns is not None and (self.question, self.answer, self.pairs) != (None, None, None):
            raise ValueError("give either `turns`, or `question` and `answer`")
        if self.turns is None and (self.question is None or self.answer is None):
            raise ValueError("`question` and `answer` are needed when there is no `turns`")
        if self.pictures and self.picture_field is not None:
            raise ValueError("give either `pictures` or `picture_field`")
        if self.shape == "dict_of_id" and self.id is not None:
            raise ValueError("`dict_of_id` takes the id from its keys: leave `id` out")
        if not self.quoted and self.shape not in ("csv", "tsv"):
            raise ValueError(f"`quoted` has no meaning for the shape `{self.shape}`")
        if self.key is not None and self.shape not in ("list", "dict_of_id"):
            raise ValueError(f"`key` has no meaning for the shape `{self.shape}`")
        return self


class SourceSpec(_StrictModel):
    """One source, as declared. A value nobody knows is null; `evidence` says for every value how it is known.

    Groups are the paper's (arXiv 2412.05237v2, figures A3 to A5): A is used as it is, B is rewritten, C is ingested and
    enters no category table. A source outside the 153 which is used as it is carries A too, with basis `inferred`, so
    that one rule decides who is rewritten.
    """

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    title: str = Field(min_length=1)
    category: Category
    group: Group | None
    modality: Modality | None
    format: Format | None
    alternates: tuple[Format, ...] = ()
    """Other formats in which copies of the source exist."""
    family: Family | None = None
    """Prompt family of the rewriting; null where the paper's prompts have no family for the source."""
    hub: HubDataset | None = None
    url: str | None = None
    path: str | None = None
    """Folder of the files; null = `settings().raw / slug`."""
    records: RecordsMapping | None = None
    """Only for the format `records`; null while nobody has written the map, and then the source cannot be read yet."""
    license: str | None = None
    """Null when unknown. A licence on an aggregator's card counts as unknown."""
    expected: ExpectedSize | None = None
    benchmarks: tuple[BenchmarkRelation, ...] = ()
    """Known relations. Empty means none is known, not that there is none."""
    reason: str | None = None
    """Why a source of group C enters no category table."""
    outside_153: bool = False
    evidence: dict[str, Evidence] = Field(default_factory=dict)

    @field_validator("alternates", "benchmarks", mode="before")
    @classmethod
    def _coerce_list_to_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _validate_consistency(self) -> SourceSpec:
        if self.records is not None and self.format != "records":
            raise ValueError("`records` belongs to the format `records` only")
        if (self.group == "C") != (self.reason is not None):
            raise ValueError("`reason` belongs to group C, and every source of group C has one")
        if self.group == "B" and self.family is None:
            raise ValueError("a source of group B is rewritten and needs a prompt `family`")
        unknown_fields = sorted(set(self.evidence) - set(SourceSpec.model_fields))
        if unknown_fields:
            raise ValueError(f"`evidence` names no field of the entry: {', '.join(unknown_fields)}")
        return self

    @property
    def root(self) -> Path:
        """The folder where the source's files are looked for."""
        return Path(self.path).expanduser() if self.path is not None else load_settings().raw_dir / self.slug


@cache
def load_catalog() -> dict[str, SourceSpec]:
    """All declared sources by slug, in catalog order: categories as in `CATEGORIES`, then as in the file."""
    try:
        return read_catalog(SOURCES_DIR)
    except MvlError as error:
        raise MvlError(error.message, hint=error.hint or "correct the entry and run again") from error


def get_source(slug: str) -> SourceSpec:
    """The declared source. Raises `MvlError` when there is none of that name."""
    if slug not in load_catalog():
        raise MvlError(f"there is no source {slug!r}", hint="`mvl sources` lists them")
    return load_catalog()[slug]


@cache
def list_partition_keys(category: Category) -> tuple[str, ...]:
    """Slugs of a category's group A and B sources, inside the 153 and outside, in catalog order."""
    return tuple(s for s, spec in load_catalog().items() if spec.category == category and spec.group in ("A", "B"))


def read_catalog(folder: Path) -> dict[str, SourceSpec]:
    """The sources declared in `folder/<category>/defs.yaml`.

    Raises `MvlError` naming file, line and entry for YAML that cannot be read, a key given twice, an unknown key, a
    value of a wrong type or outside its choices, an entry in another category's folder, and a slug declared twice.
    """
    if not folder.is_dir():
        raise MvlError(f"there is no catalog folder {folder}")
    unknown_folders = sorted(
        p.name for p in folder.iterdir() if p.is_dir() and p.name not in (*CATEGORIES, "__pycache__")
    )
    if unknown_folders:
        raise MvlError(
            f"{folder}: no category is called {', '.join(unknown_folders)}", hint=f"one of {', '.join(CATEGORIES)}"
        )
    catalog: dict[str, SourceSpec] = {}
    locations: dict[str, str] = {}
    for category in CATEGORIES:
        path = folder / category / "defs.yaml"
        if not path.is_file():
            continue
        for document in iter_documents(path):
            spec = _parse_spec(document, path, category)
            location = f"{path}:{document.find_line(['attributes', 'slug'])}"
            if spec.slug in catalog:
                raise MvlError(
                    f"{location}: the source {spec.slug!r} is declared twice (first in {locations[spec.slug]})"
                )
            catalog[spec.slug] = spec
            locations[spec.slug] = location
    return catalog


def _parse_spec(document: YamlDocument, path: Path, category: str) -> SourceSpec:
    """One checked entry."""
    value = document.value
    if not isinstance(value, dict) or not isinstance(value.get("attributes"), dict):
        raise MvlError(f"{path}:{document.line}: an entry is `type: {COMPONENT_TYPE}` and `attributes: …`")
    attributes = value["attributes"]
    name = f"source {attributes['slug']!r}" if "slug" in attributes else "a source without `slug`"
    for key in value:
        if key not in ("type", "attributes"):
            raise MvlError(f"{path}:{document.find_line([key])}: {name}: unknown key `{key}`")
    if value.get("type") != COMPONENT_TYPE:
        raise MvlError(f"{path}:{document.find_line(['type'])}: {name}: `type` must be {COMPONENT_TYPE}")
    try:
        spec = SourceSpec.model_validate(attributes)
    except ValidationError as error:
        # An unknown key first: it may be what a required one was meant to be.
        first_error = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        line = document.find_line(["attributes", *first_error["loc"]])
        key = ".".join(str(part) for part in first_error["loc"])
        message = (
            "unknown key"
            if first_error["type"] == "extra_forbidden"
            else first_error["msg"].removeprefix("Value error, ")
        )
        more_note = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise MvlError(f"{path}:{line}: {name}: {f'`{key}`: ' if key else ''}{message}{more_note}") from error
    if spec.category != category:
        raise MvlError(
            f"{path}:{document.find_line(['attributes', 'category'])}: {name}: its category is {spec.category!r}, "
            f"but it stands in the folder {category!r}"
        )
    return spec
