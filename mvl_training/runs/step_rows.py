"""From a checkpoint back to the rows that any of its steps saw.

Belongs here: the way from a step's number to mixture rows. What a row came from is `mvl_assets.lake_queries.lineage`.
"""

from __future__ import annotations

import json
from typing import Any

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_training.data.batch_order import Order
from mvl_training.data.pack_plan import PackPlan
from mvl_training.recipe import parse_recipe
from mvl_training.runs.stage_run import RESULT, Checkpoint, read_json
from mvl_training.trainer.export import PROVENANCE


def rows_of_step(lake: Lake, checkpoint: Checkpoint, number: int) -> list[dict[str, Any]]:
    """The rows of optimizer step `number` (from 1) in the order of its packs: row_id, pack (its position in the plan),
    tokens, kind, source. Raises `MvlError` for a step that was not, or when the plan has been made anew since."""
    result = read_json(checkpoint.folder / RESULT)
    if number > result["steps"]:
        raise MvlError(f"checkpoint/{checkpoint.stage} was trained for {result['steps']} steps")
    table = lake.table(f"pack_plan/{checkpoint.stage}")
    if table.data_version() != result["plan_version"]:
        raise MvlError(
            f"pack_plan/{checkpoint.stage} was made anew after the checkpoint was trained",
            hint="an older version of the Lance table still has its rows; `mvl gc` removes old versions in time",
        )
    about = json.loads((checkpoint.export / PROVENANCE).read_text(encoding="utf-8"))
    recipe = parse_recipe(about["recipe"], str(checkpoint.export / PROVENANCE))
    plan = PackPlan(lake, checkpoint.stage)
    order = Order.of(plan, recipe.stage(checkpoint.stage).batch, recipe.seed)
    packs = plan.at(order.step(number - 1))
    known = lake.index(f"mixture/{checkpoint.stage}").rows([row for pack in packs for row in pack.row_ids])
    return [
        {
            "row_id": row_id,
            "pack": pack.position,
            "tokens": tokens,
            "kind": known[row_id]["kind"],
            "source": known[row_id]["source"],
        }
        for pack in packs
        for row_id, tokens in zip(pack.row_ids, pack.lengths, strict=True)
    ]
