"""What probes say of a judge, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mvl_assets.common.tables import format_table
from mvl_assets.judging.probes.contrast_pairs import PROBE_FAMILIES
from mvl_assets.judging.probes.score import PairResult, Share, compute_probe_score, compute_threshold_scores


def format_probe_table(judge: str, results: Sequence[PairResult], min_p_yes: float = 0.0) -> str:
    """Return a table of detection and false alarm by fault, by family, and over all pairs.

    Args:
        judge: What the judge is called.
        results: Its responses.
        min_p_yes: The P(yes) that an accepted pair needs for every criterion.
    """
    rows: list[list[object]] = []
    for kind, groups in _group_probes(results).items():
        for name, members in groups.items():
            score = compute_probe_score(members, min_p_yes)
            shares = [_format_share(share) for share in (score.detection, score.false_alarm, score.ranked)]
            rows.append([kind, name, score.n_pairs, *shares, score.n_unanswered or None])
    columns = ["", "", "pairs of each", "detection", "false alarm", "good ranked higher", "no verdict"]
    threshold = f", accepted from P(yes) {min_p_yes:g}" if min_p_yes else ""
    return format_table(f"probes of {judge}{threshold}", columns, rows)


def format_threshold_table(results: Sequence[PairResult], rule_thresholds: Sequence[float] = ()) -> str | None:
    """Return a table of what thresholds of P(yes) accept; None where no P(yes) is known.

    Args:
        results: The responses of a judge.
        rule_thresholds: Those of the keep rule, which are marked.
    """
    rows = [
        [
            f"{score.min_p_yes:g}{' (keep rule)' if score.min_p_yes in rule_thresholds else ''}",
            *map(_format_share, (score.detection, score.false_alarm, score.good)),
        ]
        for score in compute_threshold_scores(results, rule_thresholds)
    ]
    columns = ["Yes, with P(yes) of at least", "detection", "false alarm", "good, of those accepted"]
    return format_table("by threshold", columns, rows) if rows else None


def build_probe_json(
    results: Sequence[PairResult], min_p_yes: float = 0.0, rule_thresholds: Sequence[float] = ()
) -> dict[str, Any]:
    """Return what the tables show, and every pair with its responses, as JSON values."""

    def to_dict(members: Sequence[PairResult]) -> dict[str, Any]:
        score = compute_probe_score(members, min_p_yes)
        shares = {"detection": score.detection, "false_alarm": score.false_alarm, "good_ranked_higher": score.ranked}
        return {"n_pairs": score.n_pairs, "n_unanswered": score.n_unanswered} | {
            name: {"count": share.count, "n": share.n, "share": share.value, "interval": share.interval}
            for name, share in shares.items()
        }

    return {
        "scores": {
            kind or "all": {name: to_dict(members) for name, members in groups.items()}
            for kind, groups in _group_probes(results).items()
        },
        "by_threshold": [asdict(score) for score in compute_threshold_scores(results, rule_thresholds)],
        "pairs": [
            {
                **result.pair.model_dump(),
                "responses": {
                    "good": result.good and asdict(result.good),
                    "bad": result.bad and asdict(result.bad),
                },
            }
            for result in results
        ],
    }


def _group_probes(results: Sequence[PairResult]) -> dict[str, dict[str, list[PairResult]]]:
    """Return the results by fault, by family, and all together."""
    faults = dict.fromkeys(result.pair.fault for result in results)
    groups: dict[str, dict[str, list[PairResult]]] = {
        "fault": {fault: [r for r in results if r.pair.fault == fault] for fault in faults},
        "family": {family: [r for r in results if r.pair.family == family] for family in PROBE_FAMILIES},
        "": {"all": list(results)},
    }
    return {kind: {name: members for name, members in named.items() if members} for kind, named in groups.items()}


def _format_share(share: Share) -> str | None:
    if share.value is None or share.interval is None:
        return None
    low, high = share.interval
    return f"{share.value:.0%} ({low:.0%} to {high:.0%})"
