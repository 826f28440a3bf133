"""Clean subset: the questions that no row touches which the checkpoint, or one before it, was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.contamination_rules import ContaminationRules
from mvl_assets.lake.lake import Lake
from mvl_training.evaluation import clean_subset
from mvl_training.evaluation.clean_subset import compute_clean_score, record_touched_items, render_clean_score
from mvl_training.evaluation.compare import compare_checkpoints
from mvl_training.runs import training_run
from mvl_training.runs.training_run import Checkpoint, set_current_checkpoint

RULES = ContaminationRules()
ITEMS = [compute_digest("item", n) for n in range(5)]
IMAGES = [compute_digest("image", n) for n in (0, 1, 1, 2, 3)]


def put(lake: Lake, name: str, rows: list[dict[str, Any]], partition: str | None = None) -> None:
    table = lake.get_table(name)
    complete = [{column: row.get(column) for column in table.spec.columns.names} for row in rows]
    table.publish([pa.Table.from_pylist(complete, schema=table.spec.columns)], partition)


def put_hit(kind: str, sample: int, item: int, **columns: Any) -> dict[str, Any]:
    return {
        "hit_id": compute_digest(kind, sample, item),
        "sample_id": compute_digest("sample", sample),
        "source": "a",
        "benchmark": "exam",
        "benchmark_item": ITEMS[item],
        "item_source": "benchmark_exam",
        "item_image_id": IMAGES[item] if "image" in kind else None,
        "kind": kind,
        "removed": False,
    } | columns


@pytest.fixture
def checkpoints(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Checkpoint]:
    """Three stages, of which stage n was trained on the samples 10 n to 10 n + 4; five items; answers to them."""
    monkeypatch.setattr(training_run, "_get_pointer_path", lambda stage: tmp_path / f"{stage}.json")
    chain: dict[str, Checkpoint] = {}
    for n, stage in enumerate(TRAINING_STAGES):
        samples = [compute_digest("sample", 10 * n + k) for k in range(5)]
        rows = [{"row_id": compute_digest("row", s), "sample_id": s, "position": k} for k, s in enumerate(samples)]
        put(lake, f"mixture/{stage}", rows)
        put(lake, f"pack_plan/{stage}", [{**row, "planned_id": compute_digest("p", row["row_id"])} for row in rows])
        checkpoint = Checkpoint(stage, tmp_path / stage, compute_digest("version", stage), 512)
        checkpoint.export_dir.mkdir(parents=True)
        (checkpoint.export_dir / "mvl.json").write_text(json.dumps({"run_hash": stage, "step": n}), encoding="utf-8")
        previous = {"run": TRAINING_STAGES[n - 1], "step": n - 1} if n else None
        plan_version = lake.get_table(f"pack_plan/{stage}").compute_data_version()
        result = {"plan_version": plan_version, "initial_weights": previous}
        (checkpoint.output_dir / "result.json").write_text(json.dumps(result), encoding="utf-8")
        set_current_checkpoint(checkpoint)
        chain[stage] = checkpoint
    items = [
        {"asked_id": compute_digest(n), "task": "exam", "doc_id": n, "item_id": item, "source": "benchmark_exam"}
        for n, item in enumerate(ITEMS)
    ]
    items = [{**item, "image_ids": [image]} for item, image in zip(items, IMAGES, strict=True)]
    put(lake, "curation/benchmark_items", items, "benchmark_exam")
    for checkpoint in chain.values():
        common = {"partition_key": checkpoint.version, "checkpoint_version": checkpoint.version, "task": "exam"}
        common |= {"benchmark": "Exam", "settings_hash": "s", "task_hash": "h", "checkpoint": checkpoint.stage}
        answers = [
            {**common, "result_id": compute_digest(checkpoint.version, n), "doc_id": n, "score": float(n < 2)}
            for n in range(6)
        ]
        put(lake, "evaluation_benchmark_answers", answers, checkpoint.version)
    return chain


def test_rows_of_earlier_stages_and_items_with_the_same_image_count(
    lake: Lake, checkpoints: dict[str, Checkpoint]
) -> None:
    hits = [
        put_hit("same_question", 0, 0),
        put_hit("same_image", 20, 1),
        put_hit("same_image_same_question", 21, 3, allowed="their training split"),
        put_hit("same_question", 99, 4),
    ]
    put(lake, "curation/contamination", hits)
    first = record_touched_items(lake, checkpoints["alignment"], RULES, run_id="run")
    last = record_touched_items(lake, checkpoints["one_vision"], RULES, run_id="run")
    assert first is not None and last is not None
    assert (first.n_rows, first.kinds) == (5, {ITEMS[0]: "same_question"})
    assert last.n_rows == 15
    assert last.kinds == {ITEMS[0]: "same_question", ITEMS[1]: "same_image", ITEMS[2]: "same_image"}
    clean = compute_clean_score(lake, "Exam", checkpoints["one_vision"].version, "s", last)
    assert clean is not None
    assert (clean.n_questions, clean.n_clean, clean.n_unknown) == (5, 2, 1)
    assert (clean.score, clean.clean_score) == (40.0, 0.0)
    assert clean.kind_counts == {"same_image": 2, "same_question": 1}
    assert "**0.0 ± 0.0** on 2 of 5 questions, 40.0 on all" in render_clean_score(clean, last)


def test_comparison_has_the_questions_that_are_clean_for_both(lake: Lake, checkpoints: dict[str, Checkpoint]) -> None:
    put(lake, "curation/contamination", [put_hit("same_question", 0, 0), put_hit("same_question", 20, 4)])
    versions = [checkpoints[stage].version for stage in ("alignment", "one_vision")]
    (comparison,) = compare_checkpoints(lake, *versions)
    assert comparison.clean is None
    for checkpoint in checkpoints.values():
        record_touched_items(lake, checkpoint, RULES, run_id="run")
    (comparison,) = compare_checkpoints(lake, *versions)
    assert comparison.n_questions == 6
    assert comparison.clean is not None
    assert (comparison.clean.n_questions, comparison.clean.first_score) == (3, pytest.approx(100 / 3))


def test_what_was_stored_is_known_when_the_plan_is_replaced(lake: Lake, checkpoints: dict[str, Checkpoint]) -> None:
    put(lake, "curation/contamination", [put_hit("same_question", 0, 0)])
    record_touched_items(lake, checkpoints["alignment"], RULES, run_id="run")
    put(lake, "pack_plan/alignment", [])
    touched = record_touched_items(lake, checkpoints["alignment"], RULES, run_id="run")
    assert touched is not None and touched.kinds == {ITEMS[0]: "same_question"}
    assert record_touched_items(lake, checkpoints["one_vision"], RULES, run_id="run") is None
    assert "have been replaced" in render_clean_score(None, None)


def test_profile_says_which_hits_taint(lake: Lake, checkpoints: dict[str, Checkpoint]) -> None:
    put(lake, "curation/contamination", [put_hit("same_image", 0, 1), put_hit("same_question", 0, 0)])
    rules = ContaminationRules(taints=["same_question"])
    touched = record_touched_items(lake, checkpoints["alignment"], rules, run_id="run")
    assert touched is not None and touched.kinds == {ITEMS[0]: "same_question"}
    assert clean_subset.read_item_ids(lake, ["exam"])["exam", 0] == ITEMS[0]
