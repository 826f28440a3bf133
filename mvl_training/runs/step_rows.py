"""Lookup of the mixture rows that a step of a checkpoint was trained on.

`mvl_assets.lake_queries.lineage` traces such a row back to its source.
"""

from __future__ import annotations

import json
from typing import Any

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import BatchOrder
from mvl_training.data.pack_plan import PackPlan
from mvl_training.recipe import parse_recipe
from mvl_training.runs.training_run import Checkpoint, read_json
from mvl_training.trainer.run_files import PROVENANCE_FILE, RESULT_FILE


def read_step_rows(lake: Lake, checkpoint: Checkpoint, step: int) -> list[dict[str, Any]]:
    """Return the rows of an optimizer step in the order of the plan.

    Args:
        lake: Lake with plan and mixture.
        checkpoint: Checkpoint of a finished stage.
        step: Optimizer step, from 1.

    Returns:
        One dictionary per row: row_id, position (in the plan), tokens, kind, source.

    Raises:
        MvlError: The step does not exist, or the plan has been replaced since.
    """
    result = read_json(checkpoint.output_dir / RESULT_FILE)
    if step > result["n_steps"]:
        raise MvlError(f"checkpoint/{checkpoint.stage} was trained for {result['n_steps']} steps")
    table = lake.get_table(f"pack_plan/{checkpoint.stage}")
    if table.compute_data_version() != result["plan_version"]:
        raise MvlError(
            f"pack_plan/{checkpoint.stage} was replaced after the checkpoint was trained",
            hint="an older version of the Lance table still has its rows, until `mvl gc` removes it",
        )
    provenance = json.loads((checkpoint.export_dir / PROVENANCE_FILE).read_text(encoding="utf-8"))
    recipe = parse_recipe(provenance["recipe"], str(checkpoint.export_dir / PROVENANCE_FILE))
    plan = PackPlan(lake, checkpoint.stage)
    batch_order = BatchOrder(len(plan), recipe.get_stage(checkpoint.stage).global_batch_size, recipe.seed)
    planned_rows = plan.read_rows(batch_order.list_step_samples(step - 1).tolist())
    rows_by_id = lake.get_index(f"mixture/{checkpoint.stage}").read_rows([row.row_id for row in planned_rows])
    return [
        {
            "row_id": row.row_id,
            "position": row.position,
            "tokens": row.n_tokens,
            "kind": rows_by_id[row.row_id]["kind"],
            "source": rows_by_id[row.row_id]["source"],
        }
        for row in planned_rows
    ]
