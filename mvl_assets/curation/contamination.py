"""Training rows that evaluation also asks: items of benchmarks, benchmarks as sources, copies of held-out questions.

The paper trains on Video-MME, EgoSchema, MATH-Vision and Design2Code and evaluates on some of them. Kinds of hits:

- `same_image_same_question`: the row shows a verified copy of an item's image and asks its question.
- `same_image`: it shows a copy and asks something else; charts and photographs of COCO are shared for good reasons.
- `same_question`: its text holds a long question of an item, whatever it shows.
- `declared`: its source is a benchmark, by the catalog.
- `near_duplicate`: it has the words of a held-out row, whose images look the same (equal perceptual hashes).
- `shared_image`: it shows an image of a held-out row.

The first three are matches whose stored scores pass the profile's rules (`benchmark_matches`). The rules also say which
kinds remove a row from mixtures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.digest import compute_digest
from mvl_assets.config.benchmarks import BenchmarkItems
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.contamination_rules import ContaminationRules
from mvl_assets.curation.benchmark_matches import MatchReport, describe_scoring, match_new_contents
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import BENCHMARK_ITEMS, CONTAMINATION
from mvl_assets.lake.table import PublishResult
from mvl_assets.lake_queries.benchmarks.hits import (
    HitCounts,
    MatchThresholds,
    count_hits,
    iter_contaminated,
    iter_item_hits,
)
from mvl_assets.lake_queries.benchmarks.questions import (
    compute_questions_basis,
    count_file_rows,
    has_questions,
    list_item_rows,
    record_questions,
)
from mvl_assets.lake_queries.benchmarks.search import MatchedBenchmark, open_benchmark_search
from mvl_assets.lake_queries.good_labels import read_good_samples
from mvl_assets.lake_queries.holdout import compute_holdout_limit

BATCH_ROWS = 4096
HELD_OUT = "held_out"
# Hit ids digest these words, which are former names of the kinds, so that the ids stay the same.
_DIGESTED_KINDS = {"near_duplicate": "copy", "shared_image": "picture"}
_COLUMNS = dict.fromkeys(CONTAMINATION.columns.names)


@dataclass(frozen=True, slots=True)
class ContaminationReport:
    """Result of a search.

    Attributes:
        hit_counts: Hits by kind.
        counts: How many rows and items they are, by source and by benchmark.
        benchmarks: The benchmarks whose items were matched.
        matched: What was matched for the first time.
        published: The table.
    """

    hit_counts: dict[str, int]
    counts: HitCounts
    benchmarks: list[MatchedBenchmark]
    matched: MatchReport
    published: PublishResult


def find_contamination(
    lake: Lake,
    sources: Sequence[SourceSpec],
    *,
    holdout_fraction: float,
    run_id: str,
    rules: ContaminationRules | None = None,
    benchmarks: Mapping[str, BenchmarkItems] | None = None,
    removes_rows: bool = True,
) -> ContaminationReport:
    """Search the newest samples of `sources` and publish `curation/contamination`.

    Args:
        lake: The lake.
        sources: The sources to compare; their order decides which held-out sample a hit names.
        holdout_fraction: The profile's share of samples that only evaluation may use, from 0 to 1.
        run_id: Stored with every hit.
        rules: Which stored scores are hits, and which hits remove a row; None takes the defaults.
        benchmarks: The benchmarks whose items are matched, by slug, as far as they are in the lake.
        removes_rows: Whether hits remove rows at all; the paper's did not.
    """
    rules, benchmarks = rules or ContaminationRules(), benchmarks or {}
    slugs = [source.slug for source in sources]
    scoring = {slug: describe_scoring(items) for slug, items in benchmarks.items()}
    report, matched_benchmarks = MatchReport(), list[MatchedBenchmark]()
    if scoring:
        with open_benchmark_search(lake, slugs, scoring) as search:
            matched_benchmarks = search.benchmarks
            report = match_new_contents(lake, search, benchmarks, run_id=run_id)
        for benchmark in matched_benchmarks:
            publish_questions(lake, benchmarks[benchmark.source], run_id=run_id)
    hit_counts: Counter[str] = Counter()
    good_samples = read_good_samples(lake) if rules.allow_labelled else {}
    categories = {source.slug: source.category for source in sources}

    def iter_rows() -> Iterator[dict[str, Any]]:
        hits = chain(
            _iter_known_hits(lake, sources, compute_holdout_limit(holdout_fraction)),
            _iter_matched_hits(lake, slugs, matched_benchmarks, benchmarks, rules),
        )
        for hit in hits:
            hit["allowed"] = _find_reason(hit, rules, good_samples)
            hit["removed"] = removes_rows and hit["allowed"] is None and hit["kind"] in rules.removes
            hit_counts[hit["kind"]] += 1
            yield {**_COLUMNS, **hit, "category": categories[hit["source"]], "run_id": run_id}

    tables = (
        pa.Table.from_pylist(rows, schema=CONTAMINATION.columns) for rows in iter_batches(iter_rows(), BATCH_ROWS)
    )
    published = lake.get_table(CONTAMINATION.name).publish(tables)
    return ContaminationReport(dict(hit_counts), count_hits(lake, rules.removes), matched_benchmarks, report, published)


def _iter_known_hits(lake: Lake, sources: Iterable[SourceSpec], holdout_limit: int) -> Iterator[dict[str, Any]]:
    """Yield the hits that are declared, and those on held-out samples."""
    declared_names = {
        source.slug: [b.name for b in source.benchmarks if b.relation == "is_benchmark"] for source in sources
    }
    declared_slugs = [slug for slug, names in declared_names.items() if names]
    for hit in iter_contaminated(lake, list(declared_names), declared_slugs, holdout_limit):
        kind = hit["kind"]
        for benchmark in declared_names[hit["source"]] if kind == "declared" else [HELD_OUT]:
            hit_id = compute_digest(hit["sample_id"], benchmark, _DIGESTED_KINDS.get(kind, kind))
            yield {**hit, "hit_id": hit_id, "benchmark": benchmark}


def _iter_matched_hits(
    lake: Lake,
    slugs: Sequence[str],
    matched_benchmarks: Sequence[MatchedBenchmark],
    benchmarks: Mapping[str, BenchmarkItems],
    rules: ContaminationRules,
) -> Iterator[dict[str, Any]]:
    """Yield the stored matches that the rules take for hits."""
    thresholds = MatchThresholds(**rules.model_dump(include=set(MatchThresholds.__slots__)))
    for hit in iter_item_hits(lake, slugs, matched_benchmarks, thresholds):
        hit_id = compute_digest("item hit", hit["sample_id"], hit["benchmark_item"], hit["kind"])
        yield {**hit, "hit_id": hit_id, "benchmark": benchmarks[hit["item_source"]].name}


def _find_reason(hit: Mapping[str, Any], rules: ContaminationRules, good_samples: Mapping[str, str]) -> str | None:
    """Return why the profile, or people, allow a hit; None if they do not."""
    if (annotators := good_samples.get(hit["sample_id"])) is not None:
        return f"labelled good by {annotators}"
    if not rules.allow:
        return None
    source, benchmark = hit["source"], hit["benchmark"]
    keys = (hit["sample_id"], hit["benchmark_item"], f"{source}:{benchmark}", source, benchmark)
    return next((rules.allow[key] for key in keys if key in rules.allow), None)


def publish_questions(lake: Lake, items: BenchmarkItems, *, run_id: str) -> None:
    """Publish which item each question of a benchmark's tasks is, as its part of `curation/benchmark_items`.

    A task's questions are the rows of its files, one file after the other by name, as `datasets` reads them. What
    nothing has changed for since is left as it is.
    """
    basis = compute_questions_basis(lake, items.slug, items.tasks)
    if has_questions(lake, items.slug, basis):
        return
    item_rows, n_rows_by_file = list_item_rows(lake, items.slug), count_file_rows(lake, items.slug)

    def iter_rows() -> Iterator[dict[str, Any]]:
        for task in items.tasks:
            starts: dict[str, int] = {}
            n_before = 0
            for file in sorted(name for name in n_rows_by_file if items.match_task(task, name)):
                starts[file], n_before = n_before, n_before + n_rows_by_file[file]
            for row in item_rows:
                if row["file"] in starts and row["position"] is not None:
                    doc_id = starts[row["file"]] + row["position"]
                    yield {
                        "asked_id": compute_digest("asked item", items.slug, task, doc_id),
                        "task": task,
                        "doc_id": doc_id,
                        "item_id": row["item_id"],
                        "source": items.slug,
                        "image_ids": row["image_ids"],
                        "run_id": run_id,
                    }

    tables = (
        pa.Table.from_pylist(rows, schema=BENCHMARK_ITEMS.columns) for rows in iter_batches(iter_rows(), BATCH_ROWS)
    )
    published = lake.get_table(BENCHMARK_ITEMS.name).publish(tables, items.slug)
    record_questions(lake, items.slug, basis, published.data_version, run_id=run_id)
