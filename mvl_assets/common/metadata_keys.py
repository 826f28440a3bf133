"""Names of the metadata and tags that assets and checks of both packages show in Dagster.

A key that is written in one module and read in another is spelled here only. `dagster/...` keys are Dagster's own.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "mvl/"

# Dagster's own.
ROW_COUNT: Final = "dagster/row_count"
PARTITION_ROW_COUNT: Final = "dagster/partition_row_count"
URI: Final = "dagster/uri"
TABLE_NAME: Final = "dagster/table_name"
COLUMN_SCHEMA: Final = "dagster/column_schema"

# Tags of assets, by which they are selected. `MODALITY` is one too.
GROUP: Final = "mvl/group"
FAMILY: Final = "mvl/family"
SOURCE: Final = "mvl/source"
CATEGORY: Final = "mvl/category"
STAGE: Final = "mvl/stage"
SUITE: Final = "mvl/suite"

# Every table.
TABLE_VERSION: Final = "mvl/table_version"
SCHEMA_VERSION: Final = "mvl/schema_version"
PREVIEW: Final = "mvl/preview"
SECONDS: Final = "mvl/seconds"
REJECTED: Final = "mvl/rejected"
REJECTS: Final = "mvl/rejects"
ROWS: Final = "mvl/rows"
PROBLEMS: Final = "mvl/problems"

# Duplicates.
DUPLICATES_BY_SOURCE: Final = "mvl/duplicates_by_source"
REMOVED_SHARES: Final = "mvl/removed_shares"
PAIRS_VERIFIED: Final = "mvl/pairs_verified"
OTHER_QUESTIONS: Final = "mvl/other_questions"

# Raw sources and categories.
ROWS_READ: Final = "mvl/rows_read"
ROWS_NEW: Final = "mvl/rows_new"
ROWS_CHANGED: Final = "mvl/rows_changed"
ROWS_WITHDRAWN: Final = "mvl/rows_withdrawn"
IMAGES_NEW: Final = "mvl/images_new"
IMAGE_BYTES_NEW: Final = "mvl/image_bytes_new"
LIMIT: Final = "mvl/limit"
FOLDER: Final = "mvl/folder"
ROWS_PER_S: Final = "mvl/rows_per_s"
SCREENING: Final = "mvl/screening"
LICENSE: Final = "mvl/license"
EXPECTED: Final = "mvl/expected"
FORMAT: Final = "mvl/format"
HUB: Final = "mvl/hub"
STATE: Final = "mvl/state"
EVIDENCE: Final = "mvl/evidence"
SOURCE_URL: Final = "mvl/url"
IN_PAPER: Final = "mvl/in_paper"

# Checks of a raw source.
DECLARED_ROWS: Final = "mvl/declared_rows"
SKIP_REASON: Final = "mvl/skip_reason"
LICENSE_BASIS: Final = "mvl/license_basis"
LICENSE_NOTE: Final = "mvl/license_note"
BENCHMARKS: Final = "mvl/benchmarks"
DECLARED_GROUP: Final = "mvl/declared_group"
SUGGESTED_GROUP: Final = "mvl/suggested_group"
SUGGESTION_REASON: Final = "mvl/suggestion_reason"

# Prompts.
TEMPLATE: Final = "mvl/template"
OUTPUT: Final = "mvl/output"
MODALITY: Final = "mvl/modality"
SAMPLING: Final = "mvl/sampling"
PROMPT_VERSION: Final = "mvl/prompt_version"
PROMPT_NOTE: Final = "mvl/prompt_note"
PROMPT_HASH: Final = "mvl/prompt_hash"

# Freshness.
STALE_PARTITIONS: Final = "mvl/stale_partitions"
"""How many partitions are stale; each is an entry of its own, with the reasons, under its name."""

# Stages that ask a model.
SAMPLES: Final = "mvl/samples"
REQUESTS_TOTAL: Final = "mvl/requests_total"
REQUESTS_REUSED: Final = "mvl/requests_reused"
REQUESTS_LEFT: Final = "mvl/requests_left"
REQUESTS_SENT: Final = "mvl/requests_sent"
REQUESTS_REASKED: Final = "mvl/requests_reasked"
PROMPT_TOKENS: Final = "mvl/prompt_tokens"
COMPLETION_TOKENS: Final = "mvl/completion_tokens"
COMPLETION_TOKENS_PER_S: Final = "mvl/completion_tokens_per_s"
COST: Final = "mvl/cost"
MODEL: Final = "mvl/model"
BLIND_ROWS: Final = "mvl/blind_rows"
SPEED: Final = "mvl/speed"
KEPT: Final = "mvl/kept"
KEEP_RATE: Final = "mvl/keep_rate"
CATEGORY_KEEP_RATE: Final = "mvl/category_keep_rate"
PAPER_KEEP_RATE: Final = "mvl/paper_keep_rate"
KEEP_RULE: Final = "mvl/keep_rule"
DROP_REASONS: Final = "mvl/drop_reasons"
PANEL: Final = "mvl/panel"
PANEL_RULE: Final = "mvl/panel_rule"
PANEL_AGREEMENT: Final = "mvl/panel_agreement"
JUDGES_COMPARED: Final = "mvl/judges_compared"
JUDGES_AGREE: Final = "mvl/judges_agree"
JUDGES_KAPPA: Final = "mvl/judges_kappa"
RECOMMENDATION: Final = "mvl/recommendation"
SCORE_CHANGES: Final = "mvl/score_changes"
SCORES_BY_SOURCE: Final = "mvl/scores_by_source"
LENGTHS_AND_KINDS: Final = "mvl/lengths_and_kinds"

# Curation, mixtures and exports.
COMPARED: Final = "mvl/compared"
HITS: Final = "mvl/hits"
SHORTFALL: Final = "mvl/shortfall"
REWRITES_KEPT: Final = "mvl/rewrites_kept"
REWRITES_HELD_OUT: Final = "mvl/rewrites_held_out"
REWRITES_EXCLUDED: Final = "mvl/rewrites_excluded"
REWRITES_OUTDATED: Final = "mvl/rewrites_outdated"
REWRITES_TAKEN: Final = "mvl/rewrites_taken"
REWRITES: Final = "mvl/rewrites"
FILES: Final = "mvl/files"
SOURCES: Final = "mvl/sources"
CARD: Final = "mvl/card"

# Pack plans. `FILL` is that of the categories of a mixture.
ROWS_KEPT: Final = "mvl/rows_kept"
FILL: Final = "mvl/fill"
TOKENS: Final = "mvl/tokens"
LOSS_TOKENS: Final = "mvl/loss_tokens"
TILES: Final = "mvl/tiles"
LOCKSTEP_EFFICIENCY: Final = "mvl/lockstep_efficiency"
LOCKSTEP: Final = "mvl/lockstep"
BALANCE: Final = "mvl/balance"
VISUAL_SHARE_OF_SAMPLE: Final = "mvl/visual_share_of_sample"
"""Followed by `_p5`, `_median`...: one key per quantile."""

# Checkpoints.
CURVES: Final = "mvl/curves"
LOSS_FIRST: Final = "mvl/loss_first"
LOSS_LAST: Final = "mvl/loss_last"
LOSS_NOISE: Final = "mvl/loss_noise"
STEPS: Final = "mvl/steps"
NON_FINITE_STEPS: Final = "mvl/non_finite_steps"
LOSS_TOKENS_PER_S: Final = "mvl/loss_tokens_per_s"
RESUMED_FROM: Final = "mvl/resumed_from"
RECIPE: Final = "mvl/recipe"
RECIPE_HASH: Final = "mvl/recipe_hash"
SETTINGS: Final = "mvl/settings"
PACK_PLAN: Final = "mvl/pack_plan"
INITIAL_WEIGHTS: Final = "mvl/initial_weights"
VERSIONS: Final = "mvl/versions"
MAX_LOGIT_DIFFERENCE: Final = "mvl/max_logit_difference"
TOLERANCE: Final = "mvl/tolerance"

# Evaluation.
QUESTIONS: Final = "mvl/questions"
SETTINGS_HASH: Final = "mvl/settings_hash"
SCORES: Final = "mvl/scores"
SCORES_BY_CATEGORY: Final = "mvl/scores_by_category"
ACCURACY: Final = "mvl/accuracy"
"""Followed by `_<stage>`: one key per checkpoint; so is `BLANK_IMAGE_ACCURACY`."""
BLANK_IMAGE_ACCURACY: Final = "mvl/blank_image_accuracy"
MAJORITY_BASELINE: Final = "mvl/majority_baseline"
SCORE: Final = "mvl/score"
STDERR: Final = "mvl/stderr"
CHECKPOINT: Final = "mvl/checkpoint"
TASKS: Final = "mvl/tasks"
LMMS_EVAL_VERSION: Final = "mvl/lmms_eval_version"
