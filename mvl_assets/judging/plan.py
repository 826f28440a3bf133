"""What judging a source would send, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping

from mvl_assets.catalog import SourceSpec
from mvl_assets.judging.judge import STAGE, cases_for
from mvl_assets.lake.lake import Lake
from mvl_assets.profile import Profile
from mvl_assets.prompts import Prompt, judge_prompts, load_prompts
from mvl_assets.rewriting.asking import model_ref
from mvl_assets.rewriting.plan import Plan, plan_requests
from mvl_assets.rewriting.rows import family_of


def plan_judge(
    lake: Lake, source: SourceSpec, profile: Profile, *, prompts: Mapping[str, Prompt] | None = None
) -> Plan:
    """The plan of `judge_source` with the same arguments, for the rewrites that exist now."""
    criteria = judge_prompts(load_prompts() if prompts is None else prompts, family_of(source))
    model = profile.model_for("judge")
    cases = cases_for(lake, source, criteria, model_ref(model))
    return plan_requests(lake, STAGE, source.slug, model, (r for case in cases for r in case.requests))
