"""What judging a source would send, before anything is sent."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Literal

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import Prompt, judge_prompts, load_prompts
from mvl_assets.judging.judge import STAGE, cases_for
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.client import model_ref
from mvl_assets.rewriting.plan import Plan, plan_requests
from mvl_assets.rewriting.requests import family_of


def plan_judge(
    lake: Lake,
    source: SourceSpec,
    profile: Profile,
    *,
    prompts: Mapping[str, Prompt] | None = None,
    limit: int | None = None,
    role: Literal["judge", "second_judge"] = "judge",
) -> Plan:
    """The plan of `judge_source` with the same arguments, for one of its judges and the rewrites that exist now.

    `limit` looks only at the rewrites of the samples that rewriting takes under the same limit.
    """
    criteria = judge_prompts(load_prompts() if prompts is None else prompts, family_of(source))
    model = profile.model_for(role)
    cases = cases_for(lake, source, criteria, [model_ref(model)])
    if limit is not None:
        rows = lake.table(f"category/{source.category}").rows(["sample_id"], sql.equals("source", source.slug), 8192)
        taken = set(heapq.nsmallest(limit, (row["sample_id"] for row in rows)))
        cases = (case for case in cases if case.rewrite["sample_id"] in taken)
    return plan_requests(lake, STAGE, source.slug, model, (case.requests[0] for case in cases))
