"""What a pack plan says about its mixture: shares by category and modality, and how they drift."""

from __future__ import annotations

from mvl_training.data.mixture_stats import MixtureStats, render_shares_table
from mvl_training.data.processing import SampleCost
from mvl_training.data.token_counts import CountedSample


def member(category: str, modality: str, *, targets: int, visual: int = 0) -> CountedSample:
    return CountedSample("", SampleCost(targets + visual, int(visual > 0), targets, visual, ""), category, modality)


def chart(targets: int) -> CountedSample:
    return member("chart", "single_image", targets=targets, visual=30)


def test_shares_add_up_and_name_the_shards_with_the_least_and_the_most() -> None:
    balance = MixtureStats()
    balance.update([chart(60), member("general", "text", targets=20), member("general", "text", targets=20)])
    balance.update([chart(20), member("general", "text", targets=80)])
    balance.update([chart(1)])  # too few rows to compare
    charts, general, *modalities = sorted(balance.compute_shares(), key=lambda share: (share.axis, share.name))
    assert (charts.n_samples, charts.n_tokens, charts.n_loss_tokens, charts.n_visual_tokens) == (3, 171, 81, 90)
    assert (charts.min_shard_share, charts.max_shard_share) == (0.2, 0.6)
    assert (general.n_loss_tokens, general.n_visual_tokens, general.min_shard_share, general.max_shard_share) == (
        120,
        0,
        0.4,
        0.8,
    )
    assert [(share.axis, share.name) for share in modalities] == [("modality", "single_image"), ("modality", "text")]


def test_a_category_that_a_shard_lacks_has_no_share_there() -> None:
    balance = MixtureStats()
    balance.update([chart(50)])
    balance.update([member("general", "text", targets=50)])
    assert {(share.min_shard_share, share.max_shard_share) for share in balance.compute_shares()} == {(0.0, 1.0)}


def test_visual_shares_of_samples_are_percentiles_over_samples() -> None:
    balance = MixtureStats()
    balance.update([member("a", "text", targets=10)] + [chart(10)] * 18 + [chart(90)])
    result = balance.compute_visual_share_percentiles()
    assert (result["p5"], result["median"], result["p95"]) == (0.0, 0.75, 0.75)


def test_the_table_is_markdown_with_one_line_per_entry() -> None:
    share = {
        "axis": "category",
        "name": "chart",
        "n_samples": 1200,
        "n_tokens": 9,
        "n_visual_tokens": 5,
        "n_loss_tokens": 4,
    }
    lines = render_shares_table([share | {"min_shard_share": 0.5, "max_shard_share": 1.0}]).splitlines()
    assert lines[2:] == ["| category | chart | 1,200 | 9 (5) | 4 (100.0%) | 50.0% to 100.0% |"]
    assert len({line.count("|") for line in lines}) == 1
