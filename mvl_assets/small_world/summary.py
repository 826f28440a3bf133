"""What the small world says of a lake: rewrites that are true before and after the judge, and faults that it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.config.prompts import load_prompts
from mvl_assets.config.settings import load_settings
from mvl_assets.judging.probes.run import PANEL, ProbeStage, run_probes
from mvl_assets.judging.probes.score import PairResult
from mvl_assets.lake.lake import Lake
from mvl_assets.model_stage.plan import plan_stage
from mvl_assets.small_world.drawn_pairs import DrawnPair, build_drawn_pairs
from mvl_assets.small_world.truth import CheckedRewrite, iter_checked_rewrites

N_DRAWINGS = 12
"""Drawings of each subject on which faults are planted."""

FILTERS: Mapping[str, Callable[[CheckedRewrite], bool]] = MappingProxyType(
    {
        "all rewrites": lambda _: True,
        "result agrees with the source": lambda rewrite: rewrite.matches_reference is True,
        "judge says Yes": lambda rewrite: rewrite.all_yes,
        "both": lambda rewrite: rewrite.matches_reference is True and rewrite.all_yes,
        "kept": lambda rewrite: rewrite.keep,
    }
)
"""Ways to choose rewrites, by the name that tables show."""


def summarize_rewrites(rewrites: Iterable[CheckedRewrite]) -> dict[str, dict[str, tuple[int, int]]]:
    """Return how many rewrites each filter lets through and how many of them are true, by source.

    Returns:
        By source, and under `all` for all sources: (rewrites, true ones) by the filter's name.
    """
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for rewrite in rewrites:
        for group in (rewrite.source, "all"):
            of_group = counts.setdefault(group, dict.fromkeys(FILTERS, (0, 0)))
            for name, passes in FILTERS.items():
                if passes(rewrite):
                    n, n_true = of_group[name]
                    of_group[name] = n + 1, n_true + rewrite.is_true
    return counts


def read_rewrites(lake: Lake) -> dict[str, dict[str, tuple[int, int]]]:
    """Return the counts of `summarize_rewrites` over the lake."""
    return summarize_rewrites(iter_checked_rewrites(lake, list(load_catalog().values()), load_settings().raw_dir))


def request_fault_verdicts(lake: Lake, profile: Profile, run_id: str) -> dict[str, list[PairResult]]:
    """Ask the judges of a profile about planted faults; return the results by judge. Stored answers are reused."""
    return run_probes(lake, profile, build_drawn_pairs(N_DRAWINGS), run_id=run_id)


def summarize_truth(lake: Lake) -> dict[str, int | None] | None:
    """Return the key `truth` of `mvl status --json`.

    Sends nothing: planted faults count where `mvl truth` has asked about them.

    Returns:
        None for a lake without drawings whose truth is known, else counts: `rewrites` that are judged, `true_before` of
        them, `kept` ones, `true_after` of these, `planted` faults that the judge was asked about (None if it was not
        yet), `caught` ones, and `lost` true answers.
    """
    counts = read_rewrites(lake).get("all")
    if counts is None:
        return None
    (rewrites, true_before), (kept, true_after) = counts["all rewrites"], counts["kept"]
    summary: dict[str, int | None] = {
        "rewrites": rewrites,
        "true_before": true_before,
        "kept": kept,
        "true_after": true_after,
        **dict.fromkeys(("planted", "caught", "lost")),
    }
    profile, pairs = load_profile(load_settings().profile), build_drawn_pairs(N_DRAWINGS)
    if _is_answered(lake, profile, pairs):
        summary |= count_faults(select_decision(run_probes(lake, profile, pairs, run_id="")))
    return summary


def select_decision(results_by_judge: Mapping[str, list[PairResult]]) -> list[PairResult]:
    """Return the results of the panel if there is one, else of the only judge."""
    return results_by_judge.get(PANEL) or next(iter(results_by_judge.values()))


def count_faults(results: Sequence[PairResult]) -> dict[str, int]:
    """Return `planted`, `caught` and `lost` of `summarize_truth`; pairs without verdicts do not count."""
    answered = [(result.good, result.bad) for result in results if result.good and result.bad]
    return {
        "planted": len(answered),
        "caught": sum(not bad.all_yes for _, bad in answered),
        "lost": sum(not good.all_yes for good, _ in answered),
    }


def _is_answered(lake: Lake, profile: Profile, pairs: Sequence[DrawnPair]) -> bool:
    prompts = load_prompts(profile=profile)
    return not any(
        plan.to_send
        for judge in profile.judges
        for plan in plan_stage(lake, ProbeStage(profile, judge, pairs, prompts))
    )
