"""What judging a source would send, before anything is sent."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Literal

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, get_judge_prompts, load_prompts
from mvl_assets.judging.judge import JUDGE_STAGE, iter_cases
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.client import to_model_ref
from mvl_assets.rewriting.plan import RequestPlan, plan_requests
from mvl_assets.rewriting.requests import resolve_prompt_family


def plan_judge(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    prompts: Mapping[str, Prompt] | None = None,
    limit: int | None = None,
    role: Literal["judge", "second_judge"] = "judge",
) -> RequestPlan:
    """The plan of `judge_source` with the same arguments, for one of its judges and the rewrites that exist now.

    `limit` looks only at the rewrites of the samples that rewriting takes under the same limit.
    """
    criteria = get_judge_prompts(load_prompts() if prompts is None else prompts, resolve_prompt_family(source))
    model = profile.get_model(role)
    cases = iter_cases(lake, source, criteria, [to_model_ref(model)])
    if limit is not None:
        rows = lake.get_table(f"category/{source.category}").iter_rows(
            ["sample_id"], sql.equals("source", source.slug), 8192
        )
        selected_sample_ids = set(heapq.nsmallest(limit, (row["sample_id"] for row in rows)))
        cases = (case for case in cases if case.rewrite["sample_id"] in selected_sample_ids)
    return plan_requests(lake, JUDGE_STAGE, source.slug, model, (case.requests[0] for case in cases))
