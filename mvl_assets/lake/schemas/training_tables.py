"""The tables of training: what is trained on, in which order, and how the checkpoints answer."""

from __future__ import annotations

import lance
import pyarrow as pa

from mvl_assets.lake.schemas.table_spec import CONVERSATIONS, STRING_LIST, VIDEO, TableSpec

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
            # Terms of the rewriter's output; null for originals, and where they are unknown.
            ("output_license", pa.string()),
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
            # Digest of the plan's inputs, the position, and the text and image ids of the row.
            ("planned_id", pa.string()),
            ("position", pa.int64()),
            ("row_id", pa.string()),
            ("n_tokens", pa.int32()),
            ("n_tiles", pa.int32()),
            ("n_loss_tokens", pa.int32()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="planned_id",
    has_key_scheme=True,
)

PACKED_ROWS = TableSpec(
    "packed_rows",
    pa.schema(
        [
            ("planned_id", pa.string()),
            ("position", pa.int64()),
            ("row_id", pa.string()),
            ("source", pa.string()),
            ("category", pa.string()),
            ("conversations", CONVERSATIONS),
            ("image_ids", STRING_LIST),
            ("video", VIDEO),
            # The images that the row shows, each once, and their bytes, one after the other in the same order.
            ("stored_image_ids", STRING_LIST),
            ("stored_image_sizes", pa.list_(pa.int64())),
            lance.blob_field("image_bytes"),
            ("n_tokens", pa.int32()),
            ("n_tiles", pa.int32()),
            ("n_loss_tokens", pa.int32()),
            # Data version of the pack plan, and the version of its table that was read.
            ("plan_version", pa.string()),
            ("plan_table_version", pa.int64()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="planned_id",
    has_key_scheme=True,
    # A planned id is the digest of what a row holds, and an image id that of its bytes.
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
            # Questions for which a judge gave no verdict; if there are any, there is no score.
            ("n_unjudged", pa.int64()),
            ("paper_score", pa.float64()),
            ("task_version", pa.string()),
            ("task_hash", pa.string()),
            ("lmms_eval_version", pa.string()),
            ("settings_hash", pa.string()),
            ("backend", pa.string()),
            ("run_id", pa.string()),
            # "default" or "paper"; null in rows from before scores said so.
            ("protocol", pa.string()),
        ]
    ),
    key_column="result_id",
    has_key_scheme=True,
    partition_column="partition_key",
    added_columns=(("protocol",),),
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
            # Digest of its images and videos; empty for text alone.
            ("cluster", pa.string()),
            # Part of the task whose mean is one of those that the score is the mean of; null if there are no parts.
            ("stratum", pa.string()),
            ("reference", pa.string()),
            ("answer", pa.string()),
            ("score", pa.float64()),
            ("run_id", pa.string()),
            # "default" or "paper"; null in rows from before scores said so.
            ("protocol", pa.string()),
        ]
    ),
    key_column="result_id",
    has_key_scheme=True,
    partition_column="partition_key",
    added_columns=(("protocol",),),
)

TOUCHED_ITEMS = TableSpec(
    "evaluation_touched_items",
    pa.schema(
        [
            ("touched_id", pa.string()),
            ("checkpoint_version", pa.string()),
            # Null in the row that says that the training rows were looked at, and how many they are.
            ("item_id", pa.string()),
            ("source", pa.string()),
            ("kind", pa.string()),
            ("n_rows", pa.int64()),
            ("run_id", pa.string()),
        ]
    ),
    key_column="touched_id",
    partition_column="checkpoint_version",
)
