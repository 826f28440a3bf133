"""`mvl judge`: measure the judge against human labels and on probes with known faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvl_assets.common.tables import as_json, format_table
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.judging.kappa import Confusion
from mvl_assets.judging.paper_reference import PAPER_KAPPA_ANNOTATORS, PAPER_KAPPA_ITEMS, PAPER_KAPPA_MODEL
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys
from mvl_assets.view.state import DEFAULT_PORT

if TYPE_CHECKING:
    from mvl_assets.config.profile import Profile
    from mvl_assets.judging.calibrate import Calibration


@click.group(name="judge")
def command() -> None:
    """Measure the judge against human labels and on known faults."""


# -- human labels ------------------------------------------------------------------------------------------------------


@command.command(name="label-sheet")
@click.option("--rows", type=click.IntRange(min=1), default=PAPER_KAPPA_ITEMS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The sheet, a CSV file.")
@click.option("--seed", default=0, show_default=True, help="Another seed draws other rows.")
def create_label_sheet(rows: int, out: Path, seed: int) -> None:
    """Write a sheet of judged pairs for people to label, with their images in a folder next to it.

    Fill the column `label` with good or bad, without knowing what the judge says; then `mvl judge calibrate`.
    """
    from mvl_assets.judging.labels import draw_label_set, write_label_sheet

    lake = Lake(load_settings().lake_root)
    label_set = draw_label_set(lake, rows, seed)
    if not label_set:
        raise MvlError("nothing is judged yet", hint="mvl run --until judged")
    n_images = write_label_sheet(lake, label_set, out)
    by_category = ", ".join(f"{name} {count}" for name, count in Counter(r["category"] for r in label_set).items())
    click.echo(f"{out}: {len(label_set)} pairs ({by_category}), {n_images} images in {out.stem}_images/")


@command.command(name="sample")
@click.option("--rows", type=click.IntRange(min=1), default=PAPER_KAPPA_ITEMS, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Another seed draws other rows.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(1, 65_535), help="Of `mvl view`.")
def draw_sample(rows: int, seed: int, port: int) -> None:
    """Draw judged pairs for people to label in `mvl view`, the same ones each time; prints the address of the queue.

    The pages do not show what the judge says. Labels are kept in the lake; `mvl judge calibrate` reads them there.
    """
    from mvl_assets.judging.labels import draw_label_set

    label_set = draw_label_set(Lake(load_settings().lake_root), rows, seed)
    if not label_set:
        raise MvlError("nothing is judged yet", hint="mvl run --until judged")
    by_category = ", ".join(f"{name} {count}" for name, count in Counter(r["category"] for r in label_set).items())
    click.echo(f"{len(label_set)} pairs ({by_category}); start `mvl view`, and open")
    click.echo(f"http://127.0.0.1:{port}/?queue={rows}&seed={seed}&hide=1")


@command.command(name="calibrate")
@click.argument("sheet", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option(
    "--min-keep",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="The lowest share that a threshold may keep.",
)
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def calibrate_judge(sheet: Path | None, min_keep: float, json_: bool) -> None:
    """Compare the judge's verdicts with human labels, and suggest a threshold for P(yes).

    SHEET is a CSV file with the columns rewrite_id (or judged_id), label (good or bad; yes, no, 1, 0 mean the same) and
    optionally annotator, one row per pair and person. Labels that were given in `mvl view` count, too, and rather than
    those of the sheet; unsure ones do not count.
    """
    from mvl_assets.judging.calibrate import calibrate
    from mvl_assets.judging.label_history import LabelHistory, to_calibration_labels
    from mvl_assets.judging.labels import LabelSheet, read_labels

    lake = Lake(load_settings().lake_root)
    labels = LabelSheet([], 0) if sheet is None else read_labels(sheet)
    all_labels = [*labels.labels, *to_calibration_labels(LabelHistory(lake).read_newest())]
    if not all_labels:
        raise MvlError(
            "there are no labels" if sheet is None else f"{sheet}: no row has a label",
            hint="call pairs good or bad in `mvl view` (`mvl judge sample` draws some), or in a sheet's column `label`",
        )
    calibration = calibrate(lake, all_labels, min_keep)
    if json_:
        click.echo(as_json(_build_calibration_json(calibration, labels.n_unlabelled)))
        return
    columns = ["", "pairs", "both good", "judge only", "label only", "both bad", "agree", "kappa", "+-"]
    rows = [["all", *_build_confusion_row(calibration.judge_vs_majority)]]
    rows += [[name, *_build_confusion_row(confusion)] for name, confusion in calibration.by_category.items()]
    click.echo(format_table("the judge (Yes to every criterion) and the majority of labels", columns, rows))
    if len(calibration.judge_vs_annotator) > 1:
        annotator_rows = [
            [f"judge, {name}", *_build_confusion_row(confusion)]
            for name, confusion in calibration.judge_vs_annotator.items()
        ]
        annotator_rows += [
            [f"{a}, {b}", *_build_confusion_row(confusion)]
            for (a, b), confusion in calibration.between_annotators.items()
        ]
        click.echo("\n" + format_table("by annotator", ["", *columns[1:]], annotator_rows))
        if calibration.leave_one_out_kappa is not None:
            click.echo(
                f"kappa {calibration.leave_one_out_kappa:.2f} with the judge in place of one annotator (the paper's:"
                f" {PAPER_KAPPA_MODEL}, and {PAPER_KAPPA_ANNOTATORS} among people, over {PAPER_KAPPA_ITEMS} pairs)"
            )
    click.echo("\n" + _format_suggestion(calibration))
    excluded_counts = {
        "without a label": labels.n_unlabelled,
        "of rows that are not judged": calibration.n_unmatched_labels,
        "tied": calibration.n_tied,
    }
    if exclusions := [f"{count} {reason}" for reason, count in excluded_counts.items() if count]:
        click.echo(f"left out: {', '.join(exclusions)}")


def _build_confusion_row(confusion: Confusion) -> list[object]:
    names = ("n", "both_yes", "first_only", "second_only", "both_no", "observed_agreement", "kappa", "standard_error")
    return [getattr(confusion, name) for name in names]


def _format_suggestion(calibration: Calibration) -> str:
    threshold = calibration.threshold
    if threshold is None:
        return "no threshold to suggest: all labels, or all probabilities, are the same"
    in_sample, cross_validated = threshold.in_sample, threshold.cross_validated
    return (
        f"suggested keep rule: p_yes >= {_format_exact(threshold.value)}"
        f" (highest kappa that keeps at least {threshold.min_keep_rate:.0%})\n"
        f"  keeps {threshold.keep_rate:.0%} of the labelled pairs; kappa {_format_two_decimals(in_sample.kappa)},"
        f" F1 {_format_two_decimals(in_sample.f1)} on them;\n"
        f"  kappa {_format_two_decimals(cross_validated.kappa)} on labels that the choice had not seen;"
        f" all_yes has {_format_two_decimals(calibration.judge_vs_majority.kappa)}"
    )


def _format_exact(value: float) -> str:
    """Return a number as a rule reads it: not rounded, which could keep other pairs, and without an exponent."""
    return format(Decimal(repr(value)), "f")


def _format_two_decimals(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _build_calibration_json(calibration: Calibration, n_unlabelled: int) -> dict[str, Any]:
    def to_dict(confusion: Confusion) -> dict[str, Any]:
        return asdict(confusion) | {
            "n": confusion.n,
            "observed_agreement": confusion.observed_agreement,
            "kappa": confusion.kappa,
            "standard_error": confusion.standard_error,
        }

    threshold = calibration.threshold
    return {
        "n_pairs": calibration.n_pairs,
        "n_tied": calibration.n_tied,
        "n_unmatched_labels": calibration.n_unmatched_labels,
        "n_unlabelled": n_unlabelled,
        "judge_vs_majority": to_dict(calibration.judge_vs_majority),
        "judge_vs_annotator": {name: to_dict(confusion) for name, confusion in calibration.judge_vs_annotator.items()},
        "between_annotators": {
            ", ".join(names): to_dict(confusion) for names, confusion in calibration.between_annotators.items()
        },
        "leave_one_out_kappa": calibration.leave_one_out_kappa,
        "by_category": {name: to_dict(confusion) for name, confusion in calibration.by_category.items()},
        "threshold": threshold
        and {
            "value": threshold.value,
            "min_keep_rate": threshold.min_keep_rate,
            "keep_rate": threshold.keep_rate,
            "in_sample": to_dict(threshold.in_sample),
            "cross_validated": to_dict(threshold.cross_validated),
        },
    }


# -- probes ------------------------------------------------------------------------------------------------------------


@command.command(name="probe")
@click.option("--family", "families", multiple=True, metavar="NAME", help="Only this family; may be given again.")
@click.option(
    "--min-p-yes",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Count a pair as accepted only if P(yes) is at least this for every criterion.",
)
@click.option("--json", "json_", is_flag=True, help="Scores, and every pair with its responses, as one JSON object.")
def probe_judge(families: tuple[str, ...], min_p_yes: float, json_: bool) -> None:
    """Ask the judge about pairs that are known to be good or bad: detection of faults, and false alarm.

    Each fault has good and bad pairs about the same images, so a judge that always says Yes, or always No, detects no
    more than it raises false alarms. A second table has the same by thresholds of P(yes), those of the profile's keep
    rule among them. Intervals are Wilson's, at 95 %. Answers are kept: asking the same judge again sends nothing. With
    a panel, every judge of it is asked.
    """
    from mvl_assets.judging.keep import list_thresholds
    from mvl_assets.judging.probes.build import build_contrast_pairs
    from mvl_assets.judging.probes.contrast_pairs import PROBE_FAMILIES
    from mvl_assets.judging.probes.report import build_probe_json, format_probe_table, format_threshold_table
    from mvl_assets.judging.probes.run import run_probes

    if unknown := set(families) - set(PROBE_FAMILIES):
        raise MvlError(f"no probes of the family {', '.join(sorted(unknown))}", hint=f"{', '.join(PROBE_FAMILIES)}")
    profile = asset_keys.load_active_profile()
    pairs = [pair for pair in build_contrast_pairs() if not families or pair.family in families]
    results_by_judge = run_probes(Lake(load_settings().lake_root), profile, pairs, run_id="probe")
    rule_thresholds = list_thresholds(profile.keep_rule)
    if json_:
        judges = {
            name: build_probe_json(results, min_p_yes, rule_thresholds) for name, results in results_by_judge.items()
        }
        click.echo(as_json(judges))
        return
    tables = []
    for name, results in results_by_judge.items():
        tables.append(format_probe_table(_describe_judge(profile, name), results, min_p_yes))
        tables += filter(None, [format_threshold_table(results, rule_thresholds)])
    click.echo("\n\n".join(tables))


def _describe_judge(profile: Profile, name: str) -> str:
    if name not in profile.judges:
        return f"the panel ({profile.judging.panel_rule})"
    model = profile.judges[name]
    # Without the images a judge can only tell what the text gives away.
    blind_note = "" if model.supports_images else ", which reads text only and saw no image"
    return f"{model.name}@{model.revision}{blind_note}"
