"""The fields of a source and the catalog of all declared sources.

A YAML document declares one source (`SourceSpec`). The package ships one catalog, `mammoth_vl` (a file per category in
`defs/sources/`); the project's own documents, in `sources/`, lie over the catalog that `mvl.yaml` names: an own source
takes the place of one with the same slug. `components/source_dataset.py` turns each into an asset.
"""

from __future__ import annotations

import codecs
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.common.path_template import format_glob
from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.config.project import PACKAGE_DIR, PROJECT_FILE, find_own_dir, load_project
from mvl_assets.config.prompts import PROMPTS_DIR, list_families
from mvl_assets.config.settings import resolve_raw_dir
from mvl_assets.config.strict_yaml import StrictModel, YamlDocument, YamlError, iter_documents
from mvl_assets.errors import MvlError

PAPER_CATALOG = "mammoth_vl"
SOURCES_DIR = PACKAGE_DIR / "defs" / "sources"
"""The files of the catalog `mammoth_vl`."""

FORMATS = tuple(
    sorted(path.stem for path in (PACKAGE_DIR / "readers" / "formats").glob("*.py") if path.stem != "__init__")
)
"""The native formats: each is a module of `readers/formats/`, which is imported when its sources are read."""

COMPONENT_TYPE = "mvl_assets.components.source_dataset.SourceDataset"

BENCHMARK_CATEGORY = "benchmark"
"""What the items of benchmarks are (`config.benchmarks`): no category of the catalog."""

CATEGORIES = (
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
)
"""The package's categories; a project adds its own in `mvl.yaml`."""

Category = str
Group = Literal["A", "B", "C"]
Modality = Literal["single_image", "multi_image", "video", "text"]
Split = Literal["train", "val", "test"]
SPLIT_FORMATS = ("coco_captions", "coco_instances")
"""The formats whose files are named after their split, and that read all of them or one."""


def list_all_categories() -> tuple[str, ...]:
    """Return the categories of the package, then those of the project."""
    return (*CATEGORIES, *(name for name in load_project().categories if name not in CATEGORIES))


def _require_category(name: str) -> str:
    if name not in (categories := list_all_categories()):
        raise ValueError(
            f"should be one of {', '.join(categories)}, or be declared in mvl.yaml (`categories: {{{name}: {{}}}}`)"
        )
    return name


def _require_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"should be one of {', '.join(FORMATS)}")
    return name


def _require_family(name: str) -> str:
    if (PROMPTS_DIR / f"rewrite_{name}.md").is_file():  # without looking through all sets for almost every source
        return name
    if name not in (families := list_families()):
        raise ValueError(f"should be one of {', '.join(families)}, or get a prompt file rewrite_{name}.md")
    return name


CategoryName = Annotated[str, AfterValidator(_require_category)]
FormatName = Annotated[str, AfterValidator(_require_format)]
FamilyName = Annotated[str, AfterValidator(_require_family)]


_BARE_FIELD = re.compile(r"[a-z_]\w*(\.\w+)*", re.ASCII | re.IGNORECASE)
"""A text that looks like the name of a field rather than like a question."""

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


def _has_field(template: str) -> bool:
    """Return whether a template names a field; one that cannot be parsed is left to the reader's message."""
    try:
        return any(field is not None for _, field, _, _ in string.Formatter().parse(template))
    except ValueError:
        return True


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

    files: str | TupleFromList[str]
    """Glob below the source's folder, or several; matches are read in sorted order. `{split}` in it is a star whose
    text is a field of every record: `{split}/labels/{name}.json`."""
    shape: Literal[
        "list",
        "dict_of_id",
        "jsonl",
        "csv",
        "tsv",
        "parquet",
        "arrow",
        "lance",
        "webdataset",
        "json",
        "xml",
        "text",
        "image",
    ]
    """`list`: JSON array of objects. `dict_of_id`: JSON object, id -> object, or id -> text or list, which is then the
    field `value`. `arrow`: Arrow files, as
    `save_to_disk` of `datasets` writes them. `lance`: folders that are Lance tables. `webdataset`: tars whose members
    with one name are a record, with a field for each ending.

    One record a file: `json`, an object; `xml`, with a field for each element; `text`, with the field `text`; `image`,
    with the fields of `files` only."""
    columns: TupleFromList[str] = ()
    """Of `csv` and `tsv`: the columns of files that have no header line."""
    delimiter: str | None = None
    """Of `csv`: the character between two cells, where that is not a comma."""
    encoding: str | None = None
    """Of `csv` and `tsv`: the encoding (`cp1252`, `gb18030`). Without it UTF-8, or UTF-16 that begins with its mark."""
    quoted: bool | None = None
    """Of `csv` and `tsv`: whether cells may be in quotes (RFC 4180), as those of a csv are unless this says false. In a
    tsv a quote is a character like any other unless this says true: captions begin with one, and do not end it."""
    empty_values: TupleFromList[str] = ()
    """Texts that stand for an empty cell, such as the `nan` of a table that pandas has written as text."""
    key: str | None = None
    """Dotted path to the list or object inside the JSON file (`data.items`); null = the file itself. The key is ignored
    for a file that is a bare list."""
    id: str | None = None
    """Field of the native id. `dict_of_id` uses its keys; elsewhere null = rows are identified by file and position."""
    question: str | None = None
    answer: str | None = None
    choices: str | TupleFromList[str] | None = None
    """Field of the answer options: a list, or an object label -> option. Appended to the question, lettered. Several
    fields (`[A, B, C, D]`) are one option each; empty ones do not count."""
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
    video: str | None = None
    """Template of the path of the record's video: a file with its ending, its name without one, or a folder of frames.
    It is resolved as images are, in `videos` instead of `images`. The text says where it is shown, with `<video>` or
    the one `<image>` that LLaVA's files write; else it comes first."""
    marker: str | None = None
    """How the texts mark an image, where that is not `<image>`: `<ImageHere>`; `<image{1}>` or `<image{0}>` where the
    markers are numbered and the first image is 1 or 0."""
    turns: str | None = None
    """Field of a whole conversation (list of from/value or role/content objects), instead of question and answer.
    Images that its parts hold or name are used, unless `images` or `image_field` is given."""

    @property
    def file_templates(self) -> tuple[str, ...]:
        """The globs of the files, with their fields."""
        return (self.files,) if isinstance(self.files, str) else self.files

    @property
    def file_globs(self) -> tuple[str, ...]:
        """The globs of the files, with a star for every field."""
        return tuple(map(format_glob, self.file_templates))

    @model_validator(mode="after")
    def _validate_text_and_image_fields(self) -> RecordsMapping:
        if self.turns is not None and (self.question, self.answer, self.pairs) != (None, None, None):
            raise ValueError("give either `turns`, or `question` and `answer`")
        if self.turns is None and (self.question is None or self.answer is None):
            raise ValueError("`question` and `answer` are needed when there is no `turns`")
        if self.images and self.image_field is not None:
            raise ValueError("give either `images` or `image_field`")
        if self.video is not None and (self.images or self.image_field is not None or self.marker is not None):
            raise ValueError("a record has either a `video` or images; a `marker` is that of images")
        if self.question is not None and _BARE_FIELD.fullmatch(self.question):
            raise ValueError(
                f'`question` is the bare word {self.question!r}: write "{{{self.question}}}" for the field'
            )
        single_templates = (template for template in (self.answer, self.video) if template is not None)
        for template in (*single_templates, *self.images):
            if not _has_field(template):
                raise ValueError(f"{template!r} is the same for every row: write fields in braces, '{{field}}'")
        if self.marker is not None and (not self.marker.strip() or self.marker == "{0}" or self.marker == "{1}"):
            raise ValueError("`marker` is the text of a marker, such as `<image{1}>`")
        if self.shape == "dict_of_id" and self.id is not None:
            raise ValueError("`dict_of_id` takes the id from its keys: leave `id` out")
        if self.quoted is not None and self.shape not in ("csv", "tsv"):
            raise ValueError(f"`quoted` has no meaning for the shape `{self.shape}`")
        if self.key is not None and self.shape not in ("list", "dict_of_id", "json"):
            raise ValueError(f"`key` has no meaning for the shape `{self.shape}`")
        is_delimited = self.shape in ("csv", "tsv")
        for name in ("columns", "delimiter", "encoding"):
            if getattr(self, name) and not is_delimited:
                raise ValueError(f"`{name}` has no meaning for the shape `{self.shape}`")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ValueError("`delimiter` is one character")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise ValueError(f"`encoding`: Python knows no encoding {self.encoding!r}") from error
        return self


class SourceSpec(_CatalogModel):
    """One source, as declared. Unknown values are null; `evidence` says for every value how it is known.

    Groups are the paper's (arXiv 2412.05237v2, figures A3 to A5): A is used as it is, B is rewritten, C is ingested and
    enters no category table. A source outside the 153 that is used as it is has group A too, with basis `inferred`, so
    that the group alone decides whether it is rewritten.
    """

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    title: str = Field(min_length=1)
    category: CategoryName
    group: Group | None
    modality: Modality | None
    images_optional: bool = False
    """Whether a source of images also has rows of text alone. Where it has not, a row without an image is rejected: its
    question would be about something that cannot be seen."""
    format: FormatName | None
    split: Split | None = None
    """The split that the source is, where all are published together: only its files are read; null = all splits."""
    alternates: TupleFromList[FormatName] = ()
    """Other formats in which copies of the source exist. The files are read in the one that they have."""
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
    supplementary: bool = False
    """Of the catalog `mammoth_vl`: one of the nine sources that are not among the paper's 153."""
    evidence: dict[str, Evidence] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _validate_consistency(self) -> SourceSpec:
        if self.records is not None and self.format != "records":
            raise ValueError("`records` goes with the format `records` only")
        if self.split is not None and self.format not in SPLIT_FORMATS:
            raise ValueError(f"`split` goes with {' and '.join(f'`{name}`' for name in SPLIT_FORMATS)} only")
        if self.slug.startswith(BENCHMARK_PREFIX) != (self.category == BENCHMARK_CATEGORY):
            raise ValueError(f"only the items of benchmarks have slugs that begin with {BENCHMARK_PREFIX}")
        if (self.group == "C") != (self.reason is not None):
            raise ValueError("every source of group C has a `reason`, and no other source has one")
        if self.group == "B" and self.family is None:
            raise ValueError("a source of group B is rewritten and needs a prompt `family`")
        unknown_fields = sorted(set(self.evidence) - set(SourceSpec.model_fields))
        if unknown_fields:
            raise ValueError(f"`evidence` names fields that the entry does not have: {', '.join(unknown_fields)}")
        return self

    @property
    def reading_fields(self) -> list[object]:
        """What of the declaration decides which rows are read: a change makes what was read stale."""
        optional_fields = {"split": self.split, "images_optional": self.images_optional or None}
        return [self.format, self.records, *(f"{k}={v}" for k, v in optional_fields.items() if v is not None)]

    @property
    def root(self) -> Path:
        """Folder of the source's files."""
        return Path(self.path).expanduser() if self.path is not None else resolve_raw_dir() / self.slug


@dataclass(frozen=True)
class Catalog:
    """The declared sources.

    Attributes:
        specs: All of them by slug, in the order of the categories, then as declared.
        own_files: The file of each source that the project declares itself.
        replaced_slugs: Own sources that take the place of one of the catalog.
    """

    specs: dict[str, SourceSpec]
    own_files: dict[str, Path]
    replaced_slugs: frozenset[str]

    def is_in_paper(self, slug: str) -> bool:
        """Return whether the source is one of the paper's 153."""
        return slug not in self.own_files and not self.specs[slug].supplementary


def load_catalog() -> dict[str, SourceSpec]:
    """Return all declared sources by slug. Raises as `load_full_catalog` does."""
    return load_full_catalog().specs


def load_full_catalog() -> Catalog:
    """Return the sources of the project's catalog with the project's own over them.

    Raises:
        MvlError: An entry is not valid, or the catalog does not exist.
    """
    try:
        return _load_full_catalog(find_own_dir("sources"))
    except MvlError as error:
        raise MvlError(error.message, hint=error.hint or "correct the entry and run again") from error


@cache
def _load_full_catalog(own_dir: Path | None) -> Catalog:
    """Read the catalog once per project and process."""
    base_specs = _read_base_catalog(own_dir)
    own_paths = [] if own_dir is None else sorted([*own_dir.rglob("*.yaml"), *own_dir.rglob("*.yml")])
    own_specs, own_files = _read_files(own_paths)
    merged_specs = [own_specs.get(slug, spec) for slug, spec in base_specs.items()]
    merged_specs += [spec for slug, spec in own_specs.items() if slug not in base_specs]
    categories = list_all_categories()
    merged_specs.sort(key=lambda spec: categories.index(spec.category))
    return Catalog({spec.slug: spec for spec in merged_specs}, own_files, frozenset(own_specs.keys() & base_specs))


def _read_base_catalog(own_dir: Path | None) -> dict[str, SourceSpec]:
    name = load_project().catalog
    if name is None:
        return {}
    if name == PAPER_CATALOG:
        return read_catalog(SOURCES_DIR)
    folder = Path(name).expanduser() if own_dir is None else own_dir.parent / Path(name).expanduser()
    if not folder.is_dir():
        raise MvlError(
            f"there is no catalog {name!r}: it is no folder",
            hint=f"in {PROJECT_FILE}, set `catalog` to {PAPER_CATALOG}, to a folder of YAML files, or to null",
        )
    return _read_files(sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]))[0]


def get_source(slug: str) -> SourceSpec:
    """Return the declared source, or the items of a benchmark. Raises `MvlError` for an unknown slug."""
    if slug.startswith(BENCHMARK_PREFIX):
        from mvl_assets.config.benchmarks import load_benchmarks  # it declares sources with the classes of this module

        if slug in load_benchmarks():
            return load_benchmarks()[slug]
        raise MvlError(
            f"there are no items of a benchmark {slug!r}",
            hint=f"{format_suggestion(slug, load_benchmarks())}`mvl sources --benchmarks` lists them",
        )
    if slug not in load_catalog():
        catalog_hint = (
            "" if load_project().catalog else f"; `catalog: {PAPER_CATALOG}` in {PROJECT_FILE} adds the paper's"
        )
        suggestion = format_suggestion(slug, load_catalog())
        raise MvlError(f"there is no source {slug!r}", hint=f"{suggestion}`mvl sources` lists them{catalog_hint}")
    return load_catalog()[slug]


def list_partition_keys(category: Category) -> tuple[str, ...]:
    """Return the slugs of a category's sources of groups A and B, in catalog order."""
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
    paths = [folder / category / "defs.yaml" for category in CATEGORIES]
    return _read_files([path for path in paths if path.is_file()], category_is_folder=True)[0]


def _read_files(
    paths: Iterable[Path], *, category_is_folder: bool = False
) -> tuple[dict[str, SourceSpec], dict[str, Path]]:
    """Return the sources that the files declare, and the file of each, by slug."""
    specs: dict[str, SourceSpec] = {}
    files: dict[str, Path] = {}
    locations: dict[str, str] = {}
    for path in paths:
        for document in _iter_source_documents(path):
            spec = _parse_spec(document, path, path.parent.name if category_is_folder else None)
            location = f"{path}:{document.find_line(['attributes', 'slug'])}"
            if spec.slug in specs:
                raise MvlError(
                    f"{location}: the source {spec.slug!r} is declared twice (first in {locations[spec.slug]})"
                )
            specs[spec.slug], files[spec.slug], locations[spec.slug] = spec, path, location
    return specs, files


def _iter_source_documents(path: Path) -> Iterator[YamlDocument]:
    try:
        yield from iter_documents(path)
    except YamlError as error:
        if error.problem.startswith("the key 'type' is given twice"):
            raise MvlError(error.message, hint="put a line `---` between two sources") from error
        raise


def _parse_spec(document: YamlDocument, path: Path, folder_category: str | None) -> SourceSpec:
    value = document.value
    if not isinstance(value, dict) or not isinstance(value.get("attributes"), dict):
        raise MvlError(f"{path}:{document.line}: an entry is `type: {COMPONENT_TYPE}` and `attributes: …`")
    attributes = value["attributes"]
    name = f"source {attributes['slug']!r}" if "slug" in attributes else "a source without `slug`"
    for key in value:
        if key not in ("type", "attributes"):
            raise MvlError(f"{path}:{document.find_line([key])}: {name}: unknown key `{key}`")
    if value.get("type", COMPONENT_TYPE) != COMPONENT_TYPE:  # it tells Dagster's own tools what an entry is
        raise MvlError(f"{path}:{document.find_line(['type'])}: {name}: `type` must be {COMPONENT_TYPE}")
    try:
        spec = document.validate(SourceSpec, ["attributes"])
    except YamlError as error:
        key_prefix = f"`{error.key}`: " if error.key else ""
        raise MvlError(f"{path}:{error.line}: {name}: {key_prefix}{error.problem}") from error
    if folder_category not in (None, spec.category):
        raise MvlError(
            f"{path}:{document.find_line(['attributes', 'category'])}: {name}: its category is {spec.category!r}, "
            f"but it is in the folder {folder_category!r}"
        )
    return spec
