"""`mvl truth`: rewrites of drawn sources held against what was drawn, and faults planted for the judge to find."""

from __future__ import annotations

import click

from mvl_assets.common.tables import as_json, format_table
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.judging.probes.report import build_probe_json, format_probe_table
from mvl_assets.lake.lake import Lake
from mvl_assets.small_world.summary import FILTERS, count_faults, read_rewrites, request_fault_verdicts, select_decision


@click.command(name="truth")
@click.option("--no-faults", is_flag=True, help="Leave out the planted faults, which ask the judge.")
@click.option("--json", "json_", is_flag=True, help="The same as one JSON object.")
def command(no_faults: bool, json_: bool) -> None:
    """Count how many rewrites are true by what was drawn, and how many planted faults the judge finds.

    Only the demo data has drawings whose truth is known (DEMO_TRUTH.jsonl beside the files of a source). A rewrite is
    true if its reasons and its result are those of the drawing, word for word. Answers about planted faults are stored:
    asking again sends nothing.
    """
    lake = Lake(load_settings().lake_root)
    counts = read_rewrites(lake)
    results_by_judge = {} if no_faults else request_fault_verdicts(lake, load_profile(load_settings().profile), "truth")
    if json_:
        rewrites = {
            source: {name: {"rewrites": n, "true": n_true} for name, (n, n_true) in by_filter.items()}
            for source, by_filter in counts.items()
        }
        judges = {name: build_probe_json(results)["scores"] for name, results in results_by_judge.items()}
        click.echo(as_json({"rewrites": rewrites, "judges": judges}))
        return
    if counts:
        rows = [
            [source, *(f"{n_true} of {n}" if n else None for n, n_true in (by_filter[name] for name in FILTERS))]
            for source, by_filter in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0]))
        ]
        click.echo(format_table("True by what was drawn", ["source", *FILTERS], rows))
    else:
        click.echo("no judged rewrite is about a drawing whose truth is known: mvl demo-data, then mvl run")
    for name, results in results_by_judge.items():
        click.echo("\n" + format_probe_table(f"{name}, faults planted in true answers", results))
    if results_by_judge:
        counts_by_name = count_faults(select_decision(results_by_judge))
        click.echo(
            f"of {counts_by_name['planted']} planted faults the judge finds {counts_by_name['caught']}, and it loses"
            f" {counts_by_name['lost']} of as many true answers"
        )
