"""The stages of the pipeline: one value per row of the README's diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ModelRole = Literal["caption", "rewrite", "judge", "score"]
"""The roles for which a profile names models."""


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: Spelled the same everywhere: the first part of its asset keys and of its answers' path, the stage of its
            rejects, and its name on the command line.
        description: What the stage makes, in one sentence.
        upstream: The stages whose assets it reads.
        table: The name of its tables, with the second part of the asset key in braces; None where it makes files.
        is_partitioned: Whether an asset has one partition per source.
        model_roles: The roles of the profile that it asks; empty for a stage that asks no model.
        accumulates: Whether a table keeps the rows of earlier runs.
    """

    name: str
    description: str
    upstream: tuple[str, ...] = ()
    table: str | None = None
    is_partitioned: bool = False
    model_roles: tuple[ModelRole, ...] = ()
    accumulates: bool = False

    @property
    def asks_model(self) -> bool:
        """Whether the stage sends requests, which are stored and may be retried."""
        return bool(self.model_roles)

    @property
    def tables_per_asset(self) -> bool:
        """Whether each asset is a table of its own, named like the asset."""
        return self.table is not None and "{" in self.table

    @property
    def counts_rows(self) -> bool:
        """Whether the last run's count is the number of rows of an asset; False where runs add to one table."""
        return self.tables_per_asset and not self.accumulates

    def get_table_name(self, asset_name: str) -> str:
        """Return the table of the asset `<stage>/<asset_name>`.

        Raises:
            ValueError: The stage makes files.
        """
        if self.table is None:
            raise ValueError(f"{self.name} has no table")
        return self.table[: self.table.index("{")] + asset_name if self.tables_per_asset else self.table


RAW: Final = Stage(
    "raw",
    "The samples of one source as they were published, read from its files, with their images and a reject for every"
    " row that cannot be read.",
    table="samples",
    is_partitioned=True,
)
BENCHMARKS: Final = Stage(
    "benchmarks",
    "The items of one benchmark (images, questions, options, answers), which training rows are compared with and which"
    " nothing trains on.",
    table="samples",
)
CATEGORY: Final = Stage(
    "category",
    "The samples of one category, sorted into group A (used as they are) and group B (to be rewritten).",
    upstream=("raw",),
    table="category/{category}",
    is_partitioned=True,
)
REWRITTEN: Final = Stage(
    "rewritten",
    "Question-answer pairs with reasoned answers that a model wrote from the short answers of group B.",
    upstream=("category",),
    table="rewritten/{category}",
    is_partitioned=True,
    model_roles=("rewrite", "caption"),
)
JUDGED: Final = Stage(
    "judged",
    "A judge's Yes or No to each criterion for every rewrite, and whether the keep rule keeps it.",
    upstream=("rewritten",),
    table="judged/{category}",
    is_partitioned=True,
    model_roles=("judge",),
)
SCORED: Final = Stage(
    "scored",
    "Scores of 1 to 5 for information content and relevance that a model gave a sample of originals and rewrites.",
    upstream=("rewritten",),
    table="scored/{category}",
    is_partitioned=True,
    model_roles=("score",),
)
SCORES: Final = Stage(
    "scores",
    "Scores that others gave samples, from Parquet files that the profile names.",
    upstream=("category",),
    table="scores/{name}",
)
CURATION: Final = Stage(
    "curation",
    "Samples that a mixture must not take: duplicates of others, and items of benchmarks.",
    upstream=("benchmarks", "category"),
    table="curation/{kind}",
)
MIXTURE: Final = Stage(
    "mixture",
    "The training rows of one training stage, drawn from the categories in the profile's shares.",
    upstream=("category", "judged", "curation", "scores"),
    table="mixture/{training_stage}",
)
EXPORT: Final = Stage(
    "export",
    "The mixtures in LLaVA's JSON format, and a dataset card; `mvl export` writes other formats.",
    upstream=("mixture",),
)
PACK_PLAN: Final = Stage(
    "pack_plan",
    "The rows of a mixture in the order of training, with exact counts, from which each step packs its samples.",
    upstream=("mixture",),
    table="pack_plan/{training_stage}",
)
PACKED_ROWS: Final = Stage(
    "packed_rows",
    "The rows of a large plan with their texts and image bytes, in the order of training: ranks read them in sequence.",
    upstream=("pack_plan",),
    table="packed_rows/{training_stage}",
)
CHECKPOINT: Final = Stage(
    "checkpoint",
    "The weights after one training stage, with the curves of the run.",
    upstream=("packed_rows", "checkpoint"),
)
EVALUATION: Final = Stage(
    "evaluation",
    "What the checkpoints answer to held-out questions and benchmarks, and their scores.",
    upstream=("checkpoint",),
    table="evaluation/{suite}",
    accumulates=True,
)

STAGES: Final = (
    RAW,
    BENCHMARKS,
    CATEGORY,
    REWRITTEN,
    JUDGED,
    SCORED,
    SCORES,
    CURATION,
    MIXTURE,
    EXPORT,
    PACK_PLAN,
    PACKED_ROWS,
    CHECKPOINT,
    EVALUATION,
)
"""All stages, in the order in which a run makes them."""

STAGES_BY_NAME: Final = {stage.name: stage for stage in STAGES}
STAGE_NAMES: Final = tuple(STAGES_BY_NAME)
MODEL_STAGES: Final = tuple(stage for stage in STAGES if stage.asks_model)
"""The stages that ask a model."""

# Answer logs that do not belong to a pipeline stage; like a stage's name, each is the first part of a log's path.
PROBE_ANSWERS: Final = "probe"
"""Where the judge's answers to probe pairs are stored; a second call with the same judge sends nothing."""
BENCHMARK_ANSWERS: Final = "benchmarks"
"""Where the answers of a checkpoint's server to benchmark questions are stored, and their prompt name."""
