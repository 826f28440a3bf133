"""The report of a study as a PNG: scores by arm, and differences from the baseline with their intervals.

matplotlib is imported in the function that draws: commands that draw nothing need not have it.
"""

from __future__ import annotations

import io

from mvl_training.studies.results import StudyReport

MAX_BENCHMARKS = 12


def plot_report(report: StudyReport) -> bytes:
    """Return a PNG with a row per benchmark, the first `MAX_BENCHMARKS` of them.

    Raises:
        ValueError: Nothing was evaluated.
    """
    benchmarks = list(dict.fromkeys(score.benchmark for score in report.scores))[:MAX_BENCHMARKS]
    if not benchmarks:
        raise ValueError("no scores to draw")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_arms = len(report.study.arms)
    figure = Figure(figsize=(7.2, len(benchmarks) * (0.8 + 0.28 * n_arms)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(benchmarks), 2, squeeze=False)
    for (score_axes, difference_axes), benchmark in zip(all_axes, benchmarks, strict=True):
        scores = [score for score in report.scores if score.benchmark == benchmark]
        score_axes.errorbar(
            [score.mean for score in scores],
            [score.arm for score in scores],
            xerr=[score.spread or 0.0 for score in scores],
            fmt="o",
            color="#1f4e79",
        )
        score_axes.set_title(f"{benchmark}: score, ± sd over seeds", fontsize=9)
        differences = [d for d in report.differences if d.benchmark == benchmark]
        for difference in differences:
            difference_axes.plot([difference.ci_low, difference.ci_high], [difference.arm] * 2, color="#9bb8d3")
            colour = "#1f4e79" if difference.is_settled else "#9bb8d3"
            difference_axes.plot([difference.difference], [difference.arm], "o", color=colour)
        difference_axes.axvline(0, color="grey", linewidth=0.8)
        difference_axes.set_title(f"minus {report.study.baseline_arm}, 95 %; dark: outside the noise", fontsize=9)
        for axes in (score_axes, difference_axes):
            axes.margins(y=0.3)
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()
