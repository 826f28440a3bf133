"""The stages of the rehearsal, each as one function that runs in a worker over all sources.

They call what the assets call, for the same sources, without Dagster. A function returns the rows that its stage
handled and what is worth knowing about them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

# Imported here, so that a worker's time does not count them: they take a second, whatever the number of rows.
import duckdb  # noqa: F401
import imagehash  # noqa: F401

from mvl_assets.common.training_stages import TrainingStage
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.curation.contamination import find_contamination
from mvl_assets.curation.duplicates import find_duplicates
from mvl_assets.curation.mixing import build_mixture
from mvl_assets.curation.screening import screen_source
from mvl_assets.execution.create import create_executor
from mvl_assets.export.export_folder import ExportFolder
from mvl_assets.export.export_stage import export_stage
from mvl_assets.export.formats.registry import get_format
from mvl_assets.ingest.categorise import categorise_source
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.judging.judge import judge_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.checks import check_table
from mvl_assets.lake_queries.summaries import count_by_source, summarize_categories
from mvl_assets.lake_queries.views import read_first_samples
from mvl_assets.rewriting.rewrite import rewrite_source
from mvl_training.data.pack_materializer import materialize_packs
from mvl_training.data.planning import build_pack_plan
from mvl_training.data.processing import load_tokenizer
from mvl_training.data.raw_packs import FrameLimits
from mvl_training.recipe import load_recipe
from scaling.raw_sources import count_source_rows, list_raw_sources, write_raw_sources

RUN_ID = "rehearsal"
HOLDOUT_FRACTION = 0.01
# The paper's sizes of the mixtures (Table 1), for the 17.6M rows that the catalog's sources have.
CATALOG_ROWS = 17_600_000
MIXTURE_ROWS = {"alignment": 558_000, "single_image": 10_000_000, "one_vision": 2_000_000}
TRAINING_STAGES: tuple[TrainingStage, ...] = get_args(TrainingStage)
CONCURRENCY = 64


def build_profile(n_rows: int, base_urls: Sequence[str]) -> Profile:
    """Return a profile with the fake model in every role, and the paper's mixtures scaled to the number of rows."""
    return Profile.model_validate(
        {
            "name": "rehearsal",
            "models": {
                "fake": {
                    "name": "fake",
                    "revision": "1",
                    "supports_images": True,
                    "base_urls": list(base_urls) or ["http://127.0.0.1:9/v1"],
                    "concurrency": CONCURRENCY,
                }
            },
            "roles": dict.fromkeys(("caption", "rewrite", "judge"), "fake"),
            "mixture": {name: round(count * n_rows / CATALOG_ROWS) for name, count in MIXTURE_ROWS.items()},
            "holdout_fraction": HOLDOUT_FRACTION,
            "recipe": "demo",
        }
    )


class Rehearsal:
    """What the stages share: the lake, the sources and the profile of one number of rows."""

    def __init__(self, folder: str, n_rows: int, base_urls: Sequence[str]) -> None:
        self.folder = Path(folder)
        self.n_rows = n_rows
        self.lake = Lake(str(self.folder / "lake"))
        self.sources = list_raw_sources(self.folder / "raw")
        self.profile = build_profile(n_rows, base_urls)
        self.executor = create_executor(self.profile.executor)

    def list_sources(self, *groups: str) -> list[SourceSpec]:
        return [spec for spec in self.sources if spec.group in groups]

    def list_tables(self) -> Iterator[tuple[str, SourceSpec]]:
        """Yield the partitioned tables of every source that has them, by name."""
        for spec in self.sources:
            yield "samples", spec
            if spec.group in ("A", "B"):
                yield f"category/{spec.category}", spec
            if spec.group == "B":
                yield f"rewritten/{spec.category}", spec
                yield f"judged/{spec.category}", spec


def write_raw_files(run: Rehearsal) -> dict[str, Any]:
    write_raw_sources(run.folder / "raw", count_source_rows(run.n_rows))
    return {"rows": run.n_rows}


def prepare_tokenizer(run: Rehearsal) -> dict[str, Any]:
    load_tokenizer(load_recipe("demo"))
    return {"rows": run.n_rows}


def ingest(run: Rehearsal) -> dict[str, Any]:
    n_rows = 0
    rejects: Counter[str] = Counter()
    for spec in run.sources:
        report = ingest_source(run.lake, spec, spec.root, run_id=RUN_ID, executor=run.executor)
        screen_source(run.lake, spec.slug)
        n_rows += report.n_rows
        rejects.update(report.reject_counts)
    assert not rejects, rejects
    return {"rows": n_rows}


def ingest_unchanged(run: Rehearsal) -> dict[str, Any]:
    n_rows = n_written = 0
    for spec in run.sources:
        report = ingest_source(run.lake, spec, spec.root, run_id=RUN_ID, executor=run.executor)
        n_rows += report.n_rows
        n_written += report.n_new + report.n_changed + report.n_withdrawn + report.n_new_images
    assert not n_written, n_written
    return {"rows": n_rows}


def categorise(run: Rehearsal) -> dict[str, Any]:
    return {"rows": sum(categorise_source(run.lake, s, run_id=RUN_ID).n_rows for s in run.list_sources("A", "B"))}


def rewrite(run: Rehearsal) -> dict[str, Any]:
    reports = [rewrite_source(run.lake, s, run.profile, run_id=RUN_ID) for s in run.list_sources("B")]
    return {
        "rows": sum(report.input_rows for report in reports),
        "rows_written": sum(report.rows for report in reports),
        "rejects": sum(sum(report.rejects_by_error.values()) for report in reports),
        "requests": sum(report.requests.attempts_sent for report in reports),
    }


def judge(run: Rehearsal) -> dict[str, Any]:
    reports = [judge_source(run.lake, s, run.profile, run_id=RUN_ID) for s in run.list_sources("B")]
    return {
        "rows": sum(report.input_rows for report in reports),
        "rows_written": sum(report.rows for report in reports),
        "kept": sum(report.kept for report in reports),
        "requests": sum(report.requests.attempts_sent for report in reports),
    }


def mark_duplicates(run: Rehearsal) -> dict[str, Any]:
    report = find_duplicates(run.lake, run.sources, run_id=RUN_ID)
    return {"rows": report.n_compared, "duplicates": report.n_duplicates}


def mark_contamination(run: Rehearsal) -> dict[str, Any]:
    report = find_contamination(run.lake, run.sources, holdout_fraction=HOLDOUT_FRACTION, run_id=RUN_ID)
    return {"rows": _count_rows(run, "samples"), "hits": report.hit_counts}


def mix(run: Rehearsal) -> dict[str, Any]:
    groups: dict[str, dict[str, str]] = {}
    for spec in run.list_sources("A", "B"):
        groups.setdefault(spec.category, {})[spec.slug] = spec.group or ""
    reports = [build_mixture(run.lake, run.profile, stage, run_id=RUN_ID, groups=groups) for stage in TRAINING_STAGES]
    return {
        "rows": _count_rows(run, "category"),
        "rows_written": {report.stage: report.published.n_rows for report in reports},
    }


def plan_packs(run: Rehearsal) -> dict[str, Any]:
    recipe = load_recipe("demo")
    reports = [build_pack_plan(run.lake, stage, recipe, run_id=RUN_ID) for stage in TRAINING_STAGES]
    return {
        "rows": sum(report.n_samples + sum(report.rejects_by_error.values()) for report in reports),
        "rejects": sum(sum(report.rejects_by_error.values()) for report in reports),
    }


def pack_rows(run: Rehearsal) -> dict[str, Any]:
    recipe = load_recipe("demo")
    reports = [
        materialize_packs(
            run.lake, stage, run.executor, frame_limits=FrameLimits.for_stage(recipe, stage), run_id=RUN_ID
        )
        for stage in TRAINING_STAGES
    ]
    return {"rows": sum(report.n_rows for report in reports)}


def export(run: Rehearsal) -> dict[str, Any]:
    folder = ExportFolder(str(run.folder / "export"))
    format_ = get_format("llava_json")
    exports = [export_stage(run.lake, stage, folder, format_, executor=run.executor) for stage in TRAINING_STAGES]
    return {"rows": sum(e.rows for e in exports), "images": sum(e.images for e in exports)}


def check_partitions(run: Rehearsal) -> dict[str, Any]:
    """Check every partition as the end of its run does, and read its preview."""
    n_rows = 0
    for name, spec in run.list_tables():
        result = check_table(run.lake.get_table(name), spec.slug)
        assert result.ok, result.problems
        n_rows += result.n_rows
        if name == "samples":
            assert read_first_samples(run.lake, spec.slug)
    return {"rows": n_rows}


def summarize_status(run: Rehearsal) -> dict[str, Any]:
    counts, _ = count_by_source(run.lake)
    summaries = summarize_categories(run.lake)
    return {"rows": counts.total(), "kept": sum(summary.n_kept for summary in summaries)}


STAGES: dict[str, Callable[[Rehearsal], dict[str, Any]]] = {
    "raw_files": write_raw_files,
    "tokenizer": prepare_tokenizer,
    "ingest": ingest,
    "ingest_unchanged": ingest_unchanged,
    "category": categorise,
    "rewriting": rewrite,
    "judging": judge,
    "duplicates": mark_duplicates,
    "contamination": mark_contamination,
    "mixture": mix,
    "pack_plan": plan_packs,
    "packed_rows": pack_rows,
    "export": export,
    "checks": check_partitions,
    "status": summarize_status,
}
"""The stages in order. The first two write what the pipeline starts from: nothing is reported of them."""


def run_stage(stage: str, folder: str, n_rows: int, base_urls: Sequence[str]) -> dict[str, Any]:
    """Run one stage over all sources; called in a worker."""
    return STAGES[stage](Rehearsal(folder, n_rows, base_urls))


def _count_rows(run: Rehearsal, family: str) -> int:
    names = [family] if family == "samples" else run.lake.list_tables(family)
    return sum(run.lake.get_table(name).count() for name in names)
