"""`mvl judge`: how far the judge can be trusted: against people's labels, and on pairs that are known to be bad."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from mvl_assets.common.tables import as_json, show
from mvl_assets.config.profile import Role
from mvl_assets.config.settings import settings
from mvl_assets.errors import MvlError
from mvl_assets.judging.kappa import Confusion
from mvl_assets.judging.paper_reference import PAPER_KAPPA_ITEMS, PAPER_KAPPA_MODEL, PAPER_KAPPA_PEOPLE
from mvl_assets.lake.lake import Lake
from mvl_assets.orchestration import asset_keys


@click.group(name="judge")
def command() -> None:
    """See how far the judge can be trusted."""


# -- labels of people --------------------------------------------------------------------------------------------------


@command.command(name="sample")
@click.option("--rows", type=click.IntRange(min=1), default=PAPER_KAPPA_ITEMS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The sheet, a CSV file.")
@click.option("--seed", default=0, show_default=True, help="Another seed, other rows.")
def sample_command(rows: int, out: Path, seed: int) -> None:
    """Write a sheet of judged pairs for people to label, with their pictures beside it.

    Fill the column `label` with good or bad, without knowing what the judge says; then `mvl judge calibrate`.
    """
    from mvl_assets.judging.labels import sample, write_sheet

    lake = Lake(settings().lake_root)
    chosen = sample(lake, rows, seed)
    if not chosen:
        raise MvlError("nothing is judged yet", hint="mvl run --until judged")
    pictures = write_sheet(lake, chosen, out)
    by_category = ", ".join(f"{name} {count}" for name, count in Counter(r["category"] for r in chosen).items())
    click.echo(f"{out}: {len(chosen)} pairs ({by_category}), {pictures} pictures in {out.stem}_pictures/")


@command.command(name="calibrate")
@click.argument("sheet", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--min-keep", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Least share a threshold may keep."
)
@click.option("--json", "json_", is_flag=True, help="As one JSON object.")
def calibrate_command(sheet: Path, min_keep: float, json_: bool) -> None:
    """Compare the judge's verdicts with people's labels, and suggest a threshold for P(yes).

    SHEET is a CSV file with the columns rewrite_id (or judged_id), label (good or bad; yes, no, 1, 0 mean the same) and
    optionally annotator, one row per pair and person.
    """
    from mvl_assets.judging.calibrate import Calibration, calibrate
    from mvl_assets.judging.labels import read_labels

    labels = read_labels(sheet)
    if not labels.labels:
        raise MvlError(f"{sheet}: no row has a label", hint="fill the column `label` with good or bad")
    found: Calibration = calibrate(Lake(settings().lake_root), labels.labels, min_keep)
    if json_:
        click.echo(as_json(_calibration_json(found, labels.blank)))
        return
    columns = ["", "pairs", "both good", "judge only", "label only", "both bad", "agree", "kappa", "+-"]
    rows = [["all", *_figures(found.model)]]
    rows += [[name, *_figures(one)] for name, one in found.categories.items()]
    click.echo(show("the judge (Yes to every criterion) and the majority of labels", columns, rows))
    if len(found.annotators) > 1:
        people = [[f"judge, {name}", *_figures(one)] for name, one in found.annotators.items()]
        people += [[f"{a}, {b}", *_figures(one)] for (a, b), one in found.between.items()]
        click.echo("\n" + show("by annotator", ["", *columns[1:]], people))
        if found.in_place is not None:
            click.echo(
                f"kappa {found.in_place:.2f} with the judge in the place of one annotator (the paper's: "
                f"{PAPER_KAPPA_MODEL}, and {PAPER_KAPPA_PEOPLE} among people, over {PAPER_KAPPA_ITEMS} pairs)"
            )
    click.echo("\n" + _advice(found))
    left_out = {"without a label": labels.blank, "of rows that are not judged": found.unknown, "split": found.split}
    if said := [f"{count} {words}" for words, count in left_out.items() if count]:
        click.echo(f"left out: {', '.join(said)}")


def _figures(found: Confusion) -> list[object]:
    return [
        found.n, found.both, found.first, found.second, found.neither, found.share, found.kappa, found.standard_error
    ]  # fmt: skip


def _advice(found: Any) -> str:
    best = found.threshold
    if best is None:
        return "no threshold to suggest: all labels, or all probabilities, are the same"
    here, unseen = best.found, best.held_out
    return (
        f"suggested keep rule: p_yes >= {_exact(best.value)} (highest kappa that keeps at least {best.min_keep:.0%})\n"
        f"  keeps {best.keeps:.0%} of the labelled pairs; kappa {_two(here.kappa)}, F1 {_two(here.f1)} on them;\n"
        f"  kappa {_two(unseen.kappa)} on labels the choice had not seen; all_yes has {_two(found.model.kappa)}"
    )


def _exact(value: float) -> str:
    """As a rule reads it: not rounded, which could keep others, and without an exponent."""
    return format(Decimal(repr(value)), "f")


def _two(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _calibration_json(found: Any, blank: int) -> dict[str, Any]:
    def plain(one: Confusion) -> dict[str, Any]:
        return asdict(one) | {"n": one.n, "share": one.share, "kappa": one.kappa, "se": one.standard_error}

    best = found.threshold
    return {
        "items": found.items,
        "split": found.split,
        "unknown": found.unknown,
        "blank": blank,
        "model": plain(found.model),
        "annotators": {name: plain(one) for name, one in found.annotators.items()},
        "between": {", ".join(names): plain(one) for names, one in found.between.items()},
        "in_place": found.in_place,
        "categories": {name: plain(one) for name, one in found.categories.items()},
        "threshold": best
        and {
            "value": best.value,
            "min_keep": best.min_keep,
            "keeps": best.keeps,
            "found": plain(best.found),
            "held_out": plain(best.held_out),
        },
    }


# -- planted faults ----------------------------------------------------------------------------------------------------


@command.command(name="planted")
@click.option("--second", is_flag=True, help="Ask the profile's second judge.")
@click.option("--json", "json_", is_flag=True, help="Every pair and its verdicts, as a JSON list.")
def planted_command(second: bool, json_: bool) -> None:
    """Ask the judge about pairs that are known to be good or bad, and count what it sees.

    Each fault has good and bad pairs about the same pictures, so a judge that always says Yes, or always No, gets half.
    Answers are kept: asking the same judge again sends nothing.
    """
    from mvl_assets.demo_data.drawings.probes import drawn
    from mvl_assets.judging.probes import FAULTS, ask_planted, read_planted, score

    profile = asset_keys.profile()
    if second and profile.second_judge is None:
        raise MvlError("the profile has no second judge", hint="name a model for the role second_judge")
    role: Role = "second_judge" if second else "judge"
    model = profile.model_for(role)
    planted = read_planted()
    pictures = {name: drawn(description) for name, description in planted.pictures.items()}
    asked = ask_planted(Lake(settings().lake_root), profile, planted, pictures, run_id="planted", role=role)
    if json_:
        plain = [
            {
                **one.twins.model_dump(),
                "heard": {"good": one.good and asdict(one.good), "bad": one.bad and asdict(one.bad)},
            }
            for one in asked
        ]
        click.echo(as_json(plain))
        return
    rows = []
    for name in (*FAULTS, "all"):
        found = score([one for one in asked if name in (one.twins.fault, "all")])
        heard = max(1, found.twins - found.unanswered)
        shares = [f"{n / heard:.0%}" for n in (found.caught, found.kept, found.told_apart)]
        rows.append([name, found.twins, *shares, found.unanswered or None])
    columns = ["fault", "pairs of each", "bad caught", "good kept", "told apart by P(yes)", "no verdict"]
    click.echo(show(f"planted pairs, judged by {model.name}@{model.revision}", columns, rows))
    if not model.sees_images:
        click.echo("this judge reads text only and saw no picture: its verdicts mean little")
