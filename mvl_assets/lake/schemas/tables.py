"""Columns, keys and schema versions of every table, and the rows that other packages hand over.

Keys are 32-hex strings. Lance protects a declared key only for variable-length strings and binary: a fixed-size key
lets two writers insert the same row twice without an error.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

import lance
import pyarrow as pa

from mvl_assets.common.image_properties import ImageProperties

KEY_METADATA = {b"lance-schema:unenforced-primary-key": b"true"}
KEY_SCHEME_COLUMN, ROW_HASH_COLUMN = "key_scheme", "row_hash"

CONVERSATIONS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
STRING_LIST = pa.list_(pa.string())
IMAGE_PROPERTIES = pa.list_(
    pa.struct(
        [
            # Of the file in the source; null for a frame of a video.
            ("name", pa.string()),
            ("size", pa.int64()),
            ("format", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("n_frames", pa.int32()),
            ("mode", pa.string()),
            ("phash", pa.string()),
        ]
    )
)
VIDEO = pa.struct([("name", pa.string()), ("seconds", pa.list_(pa.float64()))])
PACKED_ROW_LIST = pa.list_(
    pa.struct(
        [
            ("row_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("conversations", CONVERSATIONS),
            ("image_ids", STRING_LIST),
            ("video", VIDEO),
        ]
    )
)
TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSpec:
    """Columns of one table, or of a family of tables such as `rewritten/{category}`.

    Attributes:
        name: Name of the table or family.
        columns: What callers write: all columns but `key_scheme` and `row_hash`, which `Table` adds.
        key_column: The primary key, a 32-hex string.
        partition_column: The column whose value one publish replaces; None if a publish replaces the whole table.
        volatile_columns: Columns that say when and by which run a row was made. They are left out of `row_hash`, so
            that doing the same work again does not change the data version.
        derived_columns: Columns that follow from other columns of the row, or from what its ids identify. They are left
            out of `row_hash` too: they cannot change alone, and would cost more to digest than all others.
        has_row_hash: Whether rows carry the digest of their content.
        has_key_scheme: Whether rows carry the `KEY_SCHEME` of their identities. A column and not table metadata,
            because rows are inserted and partitions replaced one by one: after a change of scheme one table holds both.
        added_columns: The columns that schema versions 2, 3, ... added. Older tables get them, with nulls, when they
            are opened (`upgrade`).
        schema: All columns as stored.
    """

    name: str
    columns: pa.Schema
    key_column: str
    partition_column: str | None = None
    volatile_columns: frozenset[str] = frozenset({"run_id", "created_at"})
    derived_columns: frozenset[str] = frozenset()
    has_row_hash: bool = True
    has_key_scheme: bool = False
    added_columns: tuple[tuple[str, ...], ...] = ()
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        fields = [
            f.with_nullable(False).with_metadata(KEY_METADATA) if f.name == self.key_column else f for f in self.columns
        ]
        if self.has_key_scheme:
            fields.append(pa.field(KEY_SCHEME_COLUMN, pa.int32(), nullable=False))
        if self.has_row_hash:
            fields.append(pa.field(ROW_HASH_COLUMN, pa.string()))
        metadata = {b"mvl:schema_version": str(self.schema_version).encode()}
        object.__setattr__(self, "schema", pa.schema(fields, metadata=metadata))

    @property
    def schema_version(self) -> int:
        return 1 + len(self.added_columns)

    @property
    def content_columns(self) -> list[str]:
        """The columns that enter `row_hash`."""
        names = [*self.columns.names, KEY_SCHEME_COLUMN] if self.has_key_scheme else self.columns.names
        return [n for n in names if n not in self.volatile_columns | self.derived_columns]


IMAGES = TableSpec(
    "images",
    pa.schema(
        [
            ("image_id", pa.string()),
            ("source", pa.string()),
            lance.blob_field("bytes"),
            ("size", pa.int64()),
            ("format", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("n_frames", pa.int32()),
            ("mode", pa.string()),
            ("phash", pa.string()),
        ]
    ),
    key_column="image_id",
    partition_column="source",
    has_row_hash=False,
)

SAMPLES = TableSpec(
    "samples",
    pa.schema(
        [
            ("version_id", pa.string()),
            ("sample_id", pa.string()),
            ("source", pa.string()),
            ("revision", pa.int32()),
            ("withdrawn", pa.bool_()),
            ("native_id", pa.string()),
            ("file", pa.string()),
            ("position", pa.int64()),
            ("conversations", CONVERSATIONS),
            ("image_ids", STRING_LIST),
            ("video", VIDEO),
            ("license", pa.string()),
            # Of the content alone (conversations, images, video, licence), so that moving a row is not a new version.
            ("content_hash", pa.string()),
            ("run_id", pa.string()),
            # The data set that a collection says the row is from; null for sources that are not collections.
            ("upstream_dataset", pa.string()),
            # What steps over all samples compare, so that they read neither text nor images (common/sample_facts.py).
            ("image_properties", IMAGE_PROPERTIES),
            ("fingerprint", pa.string()),
            ("similar_fingerprint", pa.string()),
            ("holdout_hash", pa.int64()),
            ("n_turns", pa.int32()),
            ("n_chars", pa.int64()),
        ]
    ),
    key_column="version_id",
    has_key_scheme=True,
    partition_column="source",
    derived_columns=frozenset(
        {"image_properties", "fingerprint", "similar_fingerprint", "holdout_hash", "n_turns", "n_chars"}
    ),
)

ANSWERS = TableSpec(
    "answers",
    pa.schema(
        [
            ("request_key", pa.string()),
            ("source", pa.string()),
            ("stage", pa.string()),
            ("model", pa.string()),
            ("model_revision", pa.string()),
            ("prompt", pa.string()),
            ("prompt_hash", pa.string()),
            ("text", pa.string()),
            ("finish_reason", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("first_token_logprobs", pa.string()),
            ("latency_s", pa.float64()),
            ("attempts", pa.int32()),
            ("run_id", pa.string()),
            ("created_at", TIMESTAMP),
        ]
    ),
    key_column="request_key",
    has_key_scheme=True,
    has_row_hash=False,
)

REJECTS = TableSpec(
    "rejects",
    pa.schema(
        [
            ("reject_id", pa.string()),
            ("partition_key", pa.string()),
            ("stage", pa.string()),
            ("source", pa.string()),
            ("row_key", pa.string()),
            ("error", pa.string()),
            ("message", pa.string()),
            ("file", pa.string()),
            ("position", pa.int64()),
            ("attempts", pa.int32()),
            ("request_key", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="reject_id",
    partition_column="partition_key",
)

CATEGORY = TableSpec(
    "category",
    pa.schema(
        [
            ("sample_id", pa.string()),
            ("version_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("group", pa.string()),
            ("family", pa.string()),
            ("modality", pa.string()),
            # First image id, or the sample id without images: held-out questions never share it with training.
            ("image_group_id", pa.string()),
            ("holdout_hash", pa.int64()),
            ("license", pa.string()),
            ("n_images", pa.int32()),
            ("n_turns", pa.int32()),
            ("n_chars", pa.int64()),
            # "as_is", "resized", "padded": what standardising will do to the images (paper §2: 224–4,096 px, 7:1).
            ("image_action", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="sample_id",
    partition_column="source",
    derived_columns=frozenset({"holdout_hash"}),
)

REWRITTEN = TableSpec(
    "rewritten",
    pa.schema(
        [
            ("rewrite_id", pa.string()),
            ("sample_id", pa.string()),
            ("version_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("family", pa.string()),
            ("ordinal", pa.int32()),
            ("conversations", CONVERSATIONS),
            ("request_key", pa.string()),
            ("prompt", pa.string()),
            ("prompt_hash", pa.string()),
            ("model", pa.string()),
            ("model_revision", pa.string()),
            # True if a text-only model was asked, which did not see the sample's images.
            ("blind", pa.bool_()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="rewrite_id",
    has_key_scheme=True,
    partition_column="source",
)

VERDICTS = pa.list_(
    pa.struct(
        [
            ("criterion", pa.string()),
            ("request_key", pa.string()),
            ("verdict", pa.bool_()),
            ("p_yes", pa.float64()),
        ]
    )
)

# Null if the profile has no second judge, or it gave no verdict.
SECOND_JUDGE: list[tuple[str, pa.DataType]] = [
    ("second_verdicts", VERDICTS),
    ("second_all_yes", pa.bool_()),
    ("second_p_yes", pa.float64()),
    ("second_model", pa.string()),
    ("second_model_revision", pa.string()),
]

JUDGED = TableSpec(
    "judged",
    pa.schema(
        [
            ("judged_id", pa.string()),
            ("rewrite_id", pa.string()),
            ("sample_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("family", pa.string()),
            ("verdicts", VERDICTS),
            ("all_yes", pa.bool_()),
            ("p_yes", pa.float64()),
            ("matches_reference", pa.bool_()),
            ("keep", pa.bool_()),
            ("drop_reason", pa.string()),
            ("keep_rule", pa.string()),
            ("prompt_hash", pa.string()),
            ("model", pa.string()),
            ("model_revision", pa.string()),
            ("blind", pa.bool_()),
            ("run_id", pa.string()),
            *SECOND_JUDGE,
        ]
    ),
    key_column="judged_id",
    has_key_scheme=True,
    partition_column="source",
    added_columns=(tuple(name for name, _ in SECOND_JUDGE),),
)

DUPLICATES = TableSpec(
    "curation/duplicates",
    pa.schema(
        [
            ("sample_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("fingerprint", pa.string()),
            # The sample that is kept instead of this one.
            ("canonical_sample_id", pa.string()),
            ("canonical_source", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="sample_id",
)

CONTAMINATION = TableSpec(
    "curation/contamination",
    pa.schema(
        [
            ("hit_id", pa.string()),
            ("sample_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("benchmark", pa.string()),
            ("benchmark_item", pa.string()),
            # "is_benchmark", "near_duplicate" or "shared_image"; see curation/contamination.py.
            ("kind", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="hit_id",
)

MIXTURE = TableSpec(
    "mixture",
    pa.schema(
        [
            ("row_id", pa.string()),
            ("position", pa.int64()),
            # "original": a version of a sample; "rewritten": one rewrite of it.
            ("kind", pa.string()),
            ("sample_id", pa.string()),
            ("version_id", pa.string()),
            ("rewrite_id", pa.string()),
            ("judged_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("modality", pa.string()),
            ("license", pa.string()),
            # 0 unless `upsample` repeats a row.
            ("repeat_index", pa.int32()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="row_id",
    has_key_scheme=True,
)

PACK_PLAN = TableSpec(
    "pack_plan",
    pa.schema(
        [
            ("pack_id", pa.string()),
            ("position", pa.int64()),
            ("row_ids", STRING_LIST),
            ("n_tokens", pa.int32()),
            ("n_tiles", pa.int32()),
            ("n_loss_tokens", pa.int32()),
            ("lengths", pa.list_(pa.int32())),
            ("run_id", pa.string()),
        ]
    ),
    key_column="pack_id",
    has_key_scheme=True,
)

PACKED_ROWS = TableSpec(
    "packed_rows",
    pa.schema(
        [
            ("pack_id", pa.string()),
            ("position", pa.int64()),
            ("rows", PACKED_ROW_LIST),
            ("lengths", pa.list_(pa.int32())),
            # The images that the rows show, each once, and their bytes, one after the other in the same order.
            ("image_ids", STRING_LIST),
            ("image_sizes", pa.list_(pa.int64())),
            lance.blob_field("image_bytes"),
            ("n_samples", pa.int32()),
            ("n_samples_before", pa.int64()),
            ("n_tokens", pa.int32()),
            ("n_tiles", pa.int32()),
            ("n_loss_tokens", pa.int32()),
            # Data version of the pack plan, and the version of its table that was read.
            ("plan_version", pa.string()),
            ("plan_table_version", pa.int64()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="pack_id",
    has_key_scheme=True,
    # A pack id is the digest of what a pack holds, and an image id that of its bytes.
    has_row_hash=False,
)

EVALUATION = TableSpec(
    "evaluation",
    pa.schema(
        [
            ("result_id", pa.string()),
            ("checkpoint", pa.string()),
            ("checkpoint_version", pa.string()),
            ("suite", pa.string()),
            ("settings_hash", pa.string()),
            ("question_id", pa.string()),
            ("sample_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("question", pa.string()),
            ("reference", pa.string()),
            ("answer", pa.string()),
            ("correct", pa.bool_()),
            # The same question with a grey image: shows how much the text alone gives away.
            ("blank_image_answer", pa.string()),
            ("blank_image_correct", pa.bool_()),
            ("loss", pa.float64()),
            ("blank_image_loss", pa.float64()),
            ("backend", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="result_id",
    has_key_scheme=True,
    partition_column="checkpoint",
)

BENCHMARKS = TableSpec(
    "evaluation_benchmarks",
    pa.schema(
        [
            ("result_id", pa.string()),
            # Checkpoint version, benchmark and settings: what one run of a benchmark replaces.
            ("partition_key", pa.string()),
            ("checkpoint", pa.string()),
            ("checkpoint_version", pa.string()),
            ("suite", pa.string()),
            ("benchmark", pa.string()),
            # Null in the row with the benchmark's overall score.
            ("task", pa.string()),
            ("metric", pa.string()),
            ("score", pa.float64()),
            ("stderr", pa.float64()),
            ("n_questions", pa.int64()),
            ("paper_score", pa.float64()),
            ("task_version", pa.string()),
            ("task_hash", pa.string()),
            ("lmms_eval_version", pa.string()),
            ("settings_hash", pa.string()),
            ("backend", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="result_id",
    has_key_scheme=True,
    partition_column="partition_key",
)

BENCHMARK_ANSWERS = TableSpec(
    "evaluation_benchmark_answers",
    pa.schema(
        [
            ("result_id", pa.string()),
            ("partition_key", pa.string()),
            ("checkpoint", pa.string()),
            ("checkpoint_version", pa.string()),
            ("benchmark", pa.string()),
            ("task", pa.string()),
            ("task_hash", pa.string()),
            ("settings_hash", pa.string()),
            # Digest of all that was asked, images included: the same for every checkpoint.
            ("question_id", pa.string()),
            ("doc_id", pa.int64()),
            ("reference", pa.string()),
            ("answer", pa.string()),
            ("score", pa.float64()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="result_id",
    has_key_scheme=True,
    partition_column="partition_key",
)

TOMBSTONES = TableSpec(
    "tombstones",
    pa.schema(
        [
            ("purge_id", pa.string()),
            ("source", pa.string()),
            # Null: the whole source.
            ("sample_id", pa.string()),
            ("content_hash", pa.string()),
            ("created_at", TIMESTAMP),
        ]
    ),
    key_column="purge_id",
    has_key_scheme=True,
    has_row_hash=False,
)

_SINGLE_TABLES = {
    s.name: s for s in (IMAGES, SAMPLES, REJECTS, DUPLICATES, CONTAMINATION, BENCHMARKS, BENCHMARK_ANSWERS, TOMBSTONES)
}
_TABLE_FAMILIES = {
    s.name: s for s in (ANSWERS, CATEGORY, REWRITTEN, JUDGED, MIXTURE, PACK_PLAN, PACKED_ROWS, EVALUATION)
}


def get_table_spec(name: str) -> TableSpec:
    """Return the spec of a table by name, such as `samples` or `rewritten/ocr`. Raises `KeyError` for other names."""
    if name in _SINGLE_TABLES:
        return _SINGLE_TABLES[name]
    return _TABLE_FAMILIES[name.split("/", 1)[0]]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image with its original bytes; `image_id` is the digest of `data`. Sides are pixels, EXIF-rotated."""

    image_id: str
    data: bytes
    format: str
    width: int
    height: int
    n_frames: int
    mode: str
    phash: str | None

    @property
    def properties(self) -> ImageProperties:
        """The properties without the bytes."""
        return ImageProperties(
            len(self.data), self.format, self.width, self.height, self.n_frames, self.mode, self.phash
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The raw answer to one request, which was paid for; everything else is derived from it.

    Attributes:
        request_key: `Request.key`.
        source: Slug of the source.
        stage: Pipeline stage that asked.
        text: The answer as it arrived.
        first_token_logprobs: JSON {token: log-probability} of the first generated token, for constrained choices.
        latency_s: Seconds from the last attempt to the answer.
        attempts: How often the request was sent.
    """

    request_key: str
    source: str
    stage: str
    model: str
    model_revision: str
    prompt: str
    prompt_hash: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_logprobs: str | None
    latency_s: float
    attempts: int
    run_id: str
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that did not get through a pipeline stage.

    Attributes:
        stage: Pipeline stage that rejected it.
        source: Slug of its source.
        row_key: Id of the row: of a sample, rewrite or mixture row, or its place in the raw files.
        error: Class of the error in snake_case.
        message: What is wrong, in one line.
        file: Raw file, if the row was rejected while reading.
        position: Row in that file, from 0.
        attempts: How often it was tried.
        request_key: The request whose answer was rejected, if any.
    """

    stage: str
    source: str
    row_key: str
    error: str
    message: str
    file: str | None = None
    position: int | None = None
    attempts: int = 1
    request_key: str | None = None
