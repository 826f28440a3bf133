"""The tables of data: what ingest stores, what models make of it, and what curation finds in it."""

from __future__ import annotations

import lance
import pyarrow as pa

from mvl_assets.lake.schemas.table_spec import CONVERSATIONS, STRING_LIST, TIMESTAMP, VIDEO, TableSpec

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
            ("pdq", pa.string()),
            ("pdq_quality", pa.int32()),
            ("trimmed_pdq", pa.string()),
        ]
    )
)

# What a conversation says (common/text_facts.py): of a sample's, and of a rewrite's.
TEXT_FACTS: list[tuple[str, pa.DataType]] = [
    ("question_chars", pa.int64()),
    ("answer_chars", pa.int64()),
    ("type_token_ratio", pa.float32()),
    ("language", pa.string()),
]
_TEXT_FACT_NAMES = {name for name, _ in TEXT_FACTS}

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
            ("pdq", pa.string()),
            ("pdq_quality", pa.int32()),
            ("trimmed_pdq", pa.string()),
            ("sharpness", pa.float32()),
        ]
    ),
    key_column="image_id",
    partition_column="source",
    has_row_hash=False,
    added_columns=(("sharpness",),),
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
            *TEXT_FACTS,
            # Of the least sharp of its images.
            ("sharpness", pa.float32()),
        ]
    ),
    key_column="version_id",
    has_key_scheme=True,
    partition_column="source",
    derived_columns=frozenset(
        {"image_properties", "fingerprint", "similar_fingerprint", "holdout_hash", "n_turns", "n_chars", "sharpness"}
        | _TEXT_FACT_NAMES
    ),
    digested_columns={"content_hash": frozenset({"conversations", "image_ids", "video", "license"})},
    added_columns=(("sharpness",),),
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
            ("reasoning", pa.string()),
            ("output_form", pa.string()),
        ]
    ),
    key_column="request_key",
    has_key_scheme=True,
    has_row_hash=False,
    added_columns=(("reasoning",), ("output_form",)),
)

BATCHES = TableSpec(
    "batches",
    pa.schema(
        [
            ("request_key", pa.string()),
            ("batch", pa.string()),
            ("attempt", pa.int32()),
            ("endpoint", pa.string()),
            ("file_id", pa.string()),
            ("batch_id", pa.string()),
            ("model", pa.string()),
            ("model_revision", pa.string()),
            ("prompt", pa.string()),
            ("prompt_hash", pa.string()),
            ("output_form", pa.string()),
            ("updated_at", TIMESTAMP),
        ]
    ),
    key_column="request_key",
    partition_column="batch",
    has_key_scheme=True,
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
            *TEXT_FACTS,
            # Of all its images, as LLaVA-OneVision's grid cuts them.
            ("n_tiles", pa.int32()),
            # "as_is", "resized", "padded": what standardising will do to the images (paper §2: 224–4,096 px, 7:1).
            ("image_action", pa.string()),
            ("run_id", pa.string()),
            ("sharpness", pa.float32()),
        ]
    ),
    key_column="sample_id",
    partition_column="source",
    derived_columns=frozenset({"holdout_hash", "n_tiles", "sharpness"} | _TEXT_FACT_NAMES),
    added_columns=(("sharpness",),),
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
            # Of prompts that draw task types: what the model says this pair is.
            ("task_type", pa.string()),
            ("conversations", CONVERSATIONS),
            *TEXT_FACTS,
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
    derived_columns=frozenset(_TEXT_FACT_NAMES),
)

VERDICTS = pa.list_(
    pa.struct(
        [
            ("criterion", pa.string()),
            ("request_key", pa.string()),
            ("verdict", pa.bool_()),
            ("p_yes", pa.float64()),
            # "logprobs" or "votes"; null where P(yes) is not known.
            ("p_yes_from", pa.string()),
            # The requests of further votes, by which such a verdict was decided.
            ("vote_keys", pa.list_(pa.string())),
        ]
    )
)

PANEL = pa.list_(
    pa.struct(
        [
            ("model", pa.string()),
            ("model_revision", pa.string()),
            # Null if it gave no verdict.
            ("verdicts", VERDICTS),
            ("all_yes", pa.bool_()),
            ("p_yes", pa.float64()),
        ]
    )
)

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
            ("panel", PANEL),
            ("needs_image", pa.bool_()),
        ]
    ),
    key_column="judged_id",
    has_key_scheme=True,
    partition_column="source",
    added_columns=(("panel",), ("needs_image",)),
)

SCORED = TableSpec(
    "scored",
    pa.schema(
        [
            ("scored_id", pa.string()),
            # Null: the score is of the original.
            ("rewrite_id", pa.string()),
            ("sample_id", pa.string()),
            ("version_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("family", pa.string()),
            ("kind", pa.string()),
            ("content", pa.int8()),
            ("relevance", pa.int8()),
            # Of the answers of the conversation that was scored.
            ("answer_chars", pa.int32()),
            ("answer_kind", pa.string()),
            ("request_key", pa.string()),
            ("prompt", pa.string()),
            ("prompt_hash", pa.string()),
            ("model", pa.string()),
            ("model_revision", pa.string()),
            ("blind", pa.bool_()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="scored_id",
    has_key_scheme=True,
    partition_column="source",
)

SCORES = TableSpec(
    "scores",
    pa.schema(
        [
            ("sample_id", pa.string()),
            ("source", pa.string()),
            # One of the last three has the value.
            (
                "scores",
                pa.list_(
                    pa.struct(
                        [
                            ("name", pa.string()),
                            ("number", pa.float64()),
                            ("text", pa.string()),
                            ("boolean", pa.bool_()),
                        ]
                    )
                ),
            ),
            ("run_id", pa.string()),
        ]
    ),
    key_column="sample_id",
)

# Scores of curation/text_overlap.py and media/copy_detection.py; null where nothing had to be compared.
IMAGE_SIMILARITY: list[tuple[str, pa.DataType]] = [
    ("correlation", pa.float64()),
    ("block_difference", pa.float64()),
    ("lost_edges", pa.float64()),
]
SIMILARITY = [*IMAGE_SIMILARITY, ("text_overlap", pa.float64()), ("text_containment", pa.float64())]

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
            # "exact", "copied_images", "similar_text" or "copied_images_similar_text"; see curation/duplicates.py.
            ("rule", pa.string()),
            *SIMILARITY,
            ("run_id", pa.string()),
        ]
    ),
    key_column="sample_id",
)

DUPLICATES_BASIS = TableSpec(
    "curation/duplicates_basis",
    pa.schema(
        [
            ("basis_id", pa.string()),
            # What the one row says is in lake_queries/duplicates_basis.py.
            ("settings_digest", pa.string()),
            ("samples_version", pa.int64()),
            ("fragments", STRING_LIST),
            ("duplicates_version", pa.string()),
            ("n_compared", pa.int64()),
            ("n_pairs", pa.int64()),
            ("n_contents", pa.int64()),
            (
                "figures",
                pa.list_(
                    pa.struct([("source", pa.string()), ("n_rows", pa.int64()), ("n_other_question", pa.int64())])
                ),
            ),
            ("run_id", pa.string()),
        ]
    ),
    key_column="basis_id",
)

COMPARED = TableSpec(
    "curation/compared",
    pa.schema(
        [
            ("fingerprint", pa.string()),
            # The sample that stood for this content when it was compared first: it is kept rather than a later one.
            ("sample_id", pa.string()),
            ("source", pa.string()),
            ("sketch", pa.list_(pa.int64())),
            # What the first image is found by; null without one, hashes also for one that is nearly blank.
            ("first_image", pa.string()),
            ("pdq", pa.string()),
            ("trimmed_pdq", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="fingerprint",
    has_row_hash=False,
)

IMAGE_PAIRS = TableSpec(
    "curation/image_pairs",
    pa.schema(
        [
            ("pair_id", pa.string()),
            ("image_id", pa.string()),
            ("other_image_id", pa.string()),
            ("pdq_distance", pa.int32()),
            *IMAGE_SIMILARITY,
            ("run_id", pa.string()),
        ]
    ),
    key_column="pair_id",
)

SAMPLE_PAIRS = TableSpec(
    "curation/sample_pairs",
    pa.schema(
        [
            ("pair_id", pa.string()),
            ("fingerprint", pa.string()),
            ("other_fingerprint", pa.string()),
            ("n_images", pa.int32()),
            *SIMILARITY,
            ("run_id", pa.string()),
        ]
    ),
    key_column="pair_id",
)

# How like an item of a benchmark a training row is (curation/benchmark_matches.py); null where nothing was compared.
ITEM_SIMILARITY: list[tuple[str, pa.DataType]] = [
    *IMAGE_SIMILARITY,
    ("question_containment", pa.float64()),
    ("question_overlap", pa.float64()),
    ("ngram_overlap", pa.float64()),
    ("n_tokens", pa.int32()),
    ("answer_overlap", pa.float64()),
]

BENCHMARK_ITEMS = TableSpec(
    "curation/benchmark_items",
    pa.schema(
        [
            ("asked_id", pa.string()),
            ("task", pa.string()),
            ("doc_id", pa.int64()),
            ("item_id", pa.string()),
            ("source", pa.string()),
            ("image_ids", STRING_LIST),
            ("run_id", pa.string()),
        ]
    ),
    key_column="asked_id",
    partition_column="source",
)

BENCHMARK_ITEMS_BASIS = TableSpec(
    "curation/benchmark_items_basis",
    pa.schema(
        [
            ("basis_id", pa.string()),
            ("source", pa.string()),
            ("basis", pa.string()),
            ("data_version", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="basis_id",
    partition_column="source",
)

BENCHMARK_INDEX = TableSpec(
    "curation/benchmark_index",
    pa.schema(
        [
            ("array_id", pa.string()),
            ("index_id", pa.string()),
            ("name", pa.string()),
            ("dtype", pa.string()),
            ("data", pa.large_binary()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="array_id",
    # It follows from the index.
    derived_columns=frozenset({"data"}),
)

BENCHMARK_IMAGE_PAIRS = TableSpec(
    "curation/benchmark_image_pairs",
    pa.schema(
        [
            ("pair_id", pa.string()),
            ("image_id", pa.string()),
            ("item_image_id", pa.string()),
            ("pdq_distance", pa.int32()),
            *IMAGE_SIMILARITY,
            ("run_id", pa.string()),
        ]
    ),
    key_column="pair_id",
)

BENCHMARK_MATCHES = TableSpec(
    "curation/benchmark_matches",
    pa.schema(
        [
            ("match_id", pa.string()),
            ("fingerprint", pa.string()),
            ("item_id", pa.string()),
            ("source", pa.string()),
            ("items_state", pa.string()),
            # "image": they show an image and a copy of it; "text": the row's text holds the item's.
            ("evidence", pa.string()),
            ("image_id", pa.string()),
            ("item_image_id", pa.string()),
            *ITEM_SIMILARITY,
            ("run_id", pa.string()),
        ]
    ),
    key_column="match_id",
)

BENCHMARK_MATCHES_BASIS = TableSpec(
    "curation/benchmark_matches_basis",
    pa.schema(
        [
            ("basis_id", pa.string()),
            # What the one row says is in lake_queries/benchmarks/matched_basis.py.
            ("settings_digest", pa.string()),
            ("fragments", STRING_LIST),
            ("n_compared", pa.int64()),
            ("n_waves", pa.int64()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="basis_id",
)

BENCHMARK_WAVES = TableSpec(
    "curation/benchmark_waves",
    pa.schema(
        [
            ("member_id", pa.string()),
            ("wave_id", pa.string()),
            ("source", pa.string()),
            ("items_state", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="member_id",
)

BENCHMARK_COMPARED = TableSpec(
    "curation/benchmark_compared",
    pa.schema(
        [
            ("compared_id", pa.string()),
            ("fingerprint", pa.string()),
            ("wave_id", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="compared_id",
    has_row_hash=False,
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
            # Source of the item: of a benchmark, or of a held-out sample; null where a source is declared a benchmark.
            ("item_source", pa.string()),
            # See config/contamination_rules.py.
            ("kind", pa.string()),
            ("image_id", pa.string()),
            ("item_image_id", pa.string()),
            *ITEM_SIMILARITY,
            # Whether mixtures leave the row out, and why a hit counts for nothing.
            ("removed", pa.bool_()),
            ("allowed", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="hit_id",
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

LABELS = TableSpec(
    "labels",
    pa.schema(
        [
            ("label_id", pa.string()),
            ("rewrite_id", pa.string()),
            ("sample_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("annotator", pa.string()),
            # "good", "bad" or "unsure"; null takes back what the annotator said before.
            ("label", pa.string()),
            ("reasons", STRING_LIST),
            ("note", pa.string()),
            # True if the annotator did not see the verdicts.
            ("is_blind", pa.bool_()),
            ("created_at", TIMESTAMP),
        ]
    ),
    key_column="label_id",
    partition_column="source",
    has_row_hash=False,
)

RECORDED_EXPORTS = TableSpec(
    "recorded_exports",
    pa.schema(
        [
            ("export_id", pa.string()),
            # A folder, or the address of a published data set.
            ("location", pa.string()),
            ("format", pa.string()),
            ("created_at", TIMESTAMP),
        ]
    ),
    key_column="export_id",
    has_row_hash=False,
)
