"""The fields of a source and the catalog of all declared sources.

A YAML document in `defs/sources/<category>/defs.yaml` declares one source (`SourceSpec`). Dagster loads the same
documents; `components/source_dataset.py` turns each into an asset.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mvl_assets.config.prompts import list_families
from mvl_assets.config.settings import load_settings
from mvl_assets.config.strict_yaml import StrictModel, YamlDocument, YamlError, iter_documents
from mvl_assets.errors import MvlError

SOURCES_DIR = Path(__file__).resolve().parents[1] / "defs" / "sources"
FORMATS = tuple(
    sorted(
        path.stem
        for path in (Path(__file__).resolve().parents[1] / "readers" / "formats").glob("*.py")
        if path.stem != "__init__"
    )
)
"""The native formats: each is a module of `readers/formats/`, which is imported when its sources are read."""

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


def _require_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"should be one of {', '.join(FORMATS)}")
    return name


def _require_family(name: str) -> str:
    if name not in (families := list_families()):
        raise ValueError(f"should be one of {', '.join(families)}, or get a prompt file rewrite_{name}.md")
    return name


FormatName = Annotated[str, AfterValidator(_require_format)]
FamilyName = Annotated[str, AfterValidator(_require_family)]


T = TypeVar("T")
TupleFromList = Annotated[
    tuple[T, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
]


class _CatalogModel(StrictModel, strict=True):
    """Base of a catalog entry's parts: no value is converted to another type."""


class HubDataset(_CatalogModel):
    """A dataset repository on the Hugging Face hub, and the config (subset) inside it."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    config: str | None = None
    files: TupleFromList[str] = ()
    """Patterns of the files the source needs (`*` also matches across folders), instead of the format's own rule."""


class ExpectedSize(_CatalogModel):
    """The published number of items of a source. Only `rows` can be compared with what a reader finds."""

    count: int = Field(gt=0)
    unit: Literal["rows", "images", "qa"]


class Evidence(_CatalogModel):
    """The origin of a value of the entry: how it is known."""

    basis: Literal["read", "computed", "inferred", "general_knowledge", "unknown"]
    note: str | None = None


class BenchmarkRelation(_CatalogModel):
    """A relation to an evaluation benchmark: the source is the benchmark, or both have the same base sets."""

    name: str
    relation: Literal["is_benchmark", "shares_origin"]


class RecordsMapping(_CatalogModel):
    """Field map by which the `records` reader turns a record into a conversation: any table is read without code.

    `question`, `answer` and `images` are templates: `{field}` (or `{field.inner}`) is replaced by a value of the
    record, `{field:012d}` by a whole number padded with zeros, `{{` by a brace; the rest is literal. `{list.0}` is the
    first of a list, `{list.*}` all of it with commas between. `{id}` is the native id.

    The other keys are plain field names; if such a field is absent, null or empty, the conversation goes without that
    part. Worked examples: `docs/add_a_source.md`.

    ```yaml
    records:
      files: problems.json
      shape: dict_of_id
      question: "{question}"
      answer: "{answer}"
      choices: choices
      unit: unit
      images: ["tables/{id}.png"]
    ```
    """

    files: str
    """Glob below the source's folder; matches are read in sorted order."""
    shape: Literal["list", "dict_of_id", "jsonl", "csv", "tsv", "parquet"]
    """`list`: JSON array of objects. `dict_of_id`: JSON object, id -> object."""
    quoted: bool = True
    """Of `csv` and `tsv`: whether cells may be quoted (RFC 4180). False: a quote is a character like any other, as in a
    TSV of captions that begin with one."""
    key: str | None = None
    """Dotted path to the list or object inside the JSON file (`data.items`); null = the file itself. The key is ignored
    for a file that is a bare list."""
    id: str | None = None
    """Field of the native id. `dict_of_id` uses its keys; elsewhere null = rows are identified by file and position."""
    question: str | None = None
    answer: str | None = None
    choices: str | None = None
    """Field of the answer options: a list, or an object label -> option. Appended to the question, lettered."""
    answer_is: Literal["text", "index", "letter", "votes"] = "text"
    """How the answer is written when there are choices: as text, as an index from 0, or as the option's letter.
    `votes`: it is a list of what several people answered, and the most frequent answer counts."""
    context: str | None = None
    """Field of a text to put before the question."""
    hint: str | None = None
    """Field of a text to put after the question."""
    unit: str | None = None
    """Field of the unit of the answer; it is appended to the question."""
    names: dict[str, TupleFromList[str] | dict[str, str]] = Field(default_factory=dict)
    """What the values of a field mean, by the field as templates write it: a list for label numbers from 0 and for
    booleans (`{correct: ['No', 'Yes']}`), or an object value -> name."""
    pairs: str | TupleFromList[str] | None = None
    """Field of a list of objects, each one question and answer of the same conversation; `question` and `answer` (and
    `choices`, `hint`, ...) are then filled from each of them, and from the record where it lacks a field. An object of
    lists counts as a list of objects; a list of fields (`[questions, answers]`) names lists that go together. An entry
    that is a list itself has the fields `{0}`, `{1}`, ..."""
    images: TupleFromList[str] = ()
    """Templates of image paths, in the order of their markers. They are resolved in the folder of the record's file and
    in the source's folder, and in the subfolders `images` and `image_folders` of both. For a URL, the longest suffix of
    its path that exists is used (`http://host/a/b.jpg`: `a/b.jpg`, then `b.jpg`); nothing is fetched."""
    image_folders: TupleFromList[str] = ()
    """More folders with images, such as COCO's `train2017` and `val2017`."""
    image_field: str | TupleFromList[str] | None = None
    """Field that holds the image itself: bytes, base64 text, a {bytes, path} object, a path, or a list of these.
    Several fields (`[image_1, image_2]`) are taken in their order; empty ones do not count."""
    marker: str | None = None
    """How the texts mark an image, where that is not `<image>`: `<ImageHere>`; `<image{1}>` or `<image{0}>` where the
    markers are numbered and the first image is 1 or 0."""
    turns: str | None = None
    """Field of a whole conversation (list of from/value or role/content objects), instead of question and answer.
    Images that its parts hold or name are used, unless `images` or `image_field` is given."""

    @model_validator(mode="after")
    def _validate_text_and_image_fields(self) -> RecordsMapping:
        if self.turns is not None and (self.question, self.answer, self.pairs) != (None, None, None):
            raise ValueError("give either `turns`, or `question` and `answer`")
        if self.turns is None and (self.question is None or self.answer is None):
            raise ValueError("`question` and `answer` are needed when there is no `turns`")
        if self.images and self.image_field is not None:
            raise ValueError("give either `images` or `image_field`")
        if self.marker is not None and (not self.marker.strip() or self.marker == "{0}" or self.marker == "{1}"):
            raise ValueError("`marker` is the text of a marker, such as `<image{1}>`")
        if self.shape == "dict_of_id" and self.id is not None:
            raise ValueError("`dict_of_id` takes the id from its keys: leave `id` out")
        if not self.quoted and self.shape not in ("csv", "tsv"):
            raise ValueError(f"`quoted` has no meaning for the shape `{self.shape}`")
        if self.key is not None and self.shape not in ("list", "dict_of_id"):
            raise ValueError(f"`key` has no meaning for the shape `{self.shape}`")
        return self


class SourceSpec(_CatalogModel):
    """One source, as declared. Unknown values are null; `evidence` says for every value how it is known.

    Groups are the paper's (arXiv 2412.05237v2, figures A3 to A5): A is used as it is, B is rewritten, C is ingested and
    enters no category table. A source outside the 153 that is used as it is has group A too, with basis `inferred`, so
    that the group alone decides whether it is rewritten.
    """

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    title: str = Field(min_length=1)
    category: Category
    group: Group | None
    modality: Modality | None
    format: FormatName | None
    alternates: TupleFromList[FormatName] = ()
    """Other formats in which copies of the source exist."""
    family: FamilyName | None = None
    """Prompt family for rewriting; null where the paper's prompts have no family for the source."""
    hub: HubDataset | None = None
    url: str | None = None
    path: str | None = None
    """Folder of the files; null = the folder `slug` in `Settings.raw_dir`."""
    records: RecordsMapping | None = None
    """Only for the format `records`; null = not written yet, so the source cannot be read."""
    license: str | None = None
    """Null when unknown. A licence on an aggregator's card counts as unknown."""
    expected: ExpectedSize | None = None
    benchmarks: TupleFromList[BenchmarkRelation] = ()
    """Known relations. Empty means that none is known, not that there is none."""
    reason: str | None = None
    """Why a source of group C enters no category table."""
    outside_153: bool = False
    evidence: dict[str, Evidence] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _validate_consistency(self) -> SourceSpec:
        if self.records is not None and self.format != "records":
            raise ValueError("`records` goes with the format `records` only")
        if (self.group == "C") != (self.reason is not None):
            raise ValueError("every source of group C has a `reason`, and no other source has one")
        if self.group == "B" and self.family is None:
            raise ValueError("a source of group B is rewritten and needs a prompt `family`")
        unknown_fields = sorted(set(self.evidence) - set(SourceSpec.model_fields))
        if unknown_fields:
            raise ValueError(f"`evidence` names fields that the entry does not have: {', '.join(unknown_fields)}")
        return self

    @property
    def root(self) -> Path:
        """Folder of the source's files."""
        return Path(self.path).expanduser() if self.path is not None else load_settings().raw_dir / self.slug


@cache
def load_catalog() -> dict[str, SourceSpec]:
    """Return all declared sources by slug, in catalog order: categories as in `CATEGORIES`, then as in the file.

    Raises:
        MvlError: An entry is not valid.
    """
    try:
        return read_catalog(SOURCES_DIR)
    except MvlError as error:
        raise MvlError(error.message, hint=error.hint or "correct the entry and run again") from error


def get_source(slug: str) -> SourceSpec:
    """Return the declared source. Raises `MvlError` for an unknown slug."""
    if slug not in load_catalog():
        raise MvlError(f"there is no source {slug!r}", hint="`mvl sources` lists them")
    return load_catalog()[slug]


@cache
def list_partition_keys(category: Category) -> tuple[str, ...]:
    """Return the slugs of a category's sources of groups A and B, in the 153 or not, in catalog order."""
    return tuple(s for s, spec in load_catalog().items() if spec.category == category and spec.group in ("A", "B"))


def read_catalog(folder: Path) -> dict[str, SourceSpec]:
    """Return the sources declared in `folder/<category>/defs.yaml`, by slug.

    Raises:
        MvlError: Names file, line and entry for YAML that cannot be read, a duplicate or unknown key, a value of a
            wrong type or outside its choices, an entry in another category's folder, and a slug declared twice.
    """
    if not folder.is_dir():
        raise MvlError(f"there is no catalog folder {folder}")
    unknown_folders = sorted(
        p.name for p in folder.iterdir() if p.is_dir() and p.name not in (*CATEGORIES, "__pycache__")
    )
    if unknown_folders:
        raise MvlError(
            f"{folder}: not a category: {', '.join(unknown_folders)}", hint=f"use one of {', '.join(CATEGORIES)}"
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
        spec = document.validate(SourceSpec, ["attributes"])
    except YamlError as error:
        key_prefix = f"`{error.key}`: " if error.key else ""
        raise MvlError(f"{path}:{error.line}: {name}: {key_prefix}{error.problem}") from error
    if spec.category != category:
        raise MvlError(
            f"{path}:{document.find_line(['attributes', 'category'])}: {name}: its category is {spec.category!r}, "
            f"but it is in the folder {category!r}"
        )
    return spec
