"""`mvl judge`: a sheet, labels, a threshold, and the probe pairs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from mvl_assets.cli import cli
from mvl_assets.judging.paper_reference import get_paper_keep_rate
from mvl_assets.judging.probes.contrast_pairs import PROBE_FAULTS
from tests.cli.home import Home, lines_with, one_error


def test_a_sheet_is_written_labelled_and_compared(built: Home, tmp_path: Path) -> None:
    sheet = tmp_path / "labels.csv"
    output = built.run("judge", "label-sheet", "--rows", "12", "--out", str(sheet))
    assert "12 pairs (caption 6, code_math 6)" in output
    one_error(built.mvl("judge", "label-sheet", "--out", str(sheet)), "exists, and may hold labels", "--out")
    one_error(built.mvl("judge", "calibrate", str(sheet)), "no row has a label", "good or bad")
    assert "/?queue=6&seed=2&hide=1" in built.run("judge", "sample", "--rows", "6", "--seed", "2")
    with sheet.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    verdicts = {
        row["rewrite_id"]: row
        for category in ("caption", "code_math")
        for row in built.lake.get_table(f"judged/{category}").iter_rows(["rewrite_id", "all_yes", "p_yes"])
    }
    # One person agrees with the judge, the other calls the first two the opposite.
    listed = [
        {
            **row,
            "label": "good" if verdicts[row["rewrite_id"]]["all_yes"] != (who == "bob" and n < 2) else "bad",
            "annotator": who,
        }
        for who in ("ann", "bob")
        for n, row in enumerate(rows)
    ]
    labelled = tmp_path / "both.csv"
    with labelled.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    result = built.json("judge", "calibrate", str(labelled))
    assert (result["n_pairs"], result["n_tied"], result["n_unmatched_labels"]) == (12, 2, 0)
    assert result["judge_vs_annotator"]["ann"]["observed_agreement"] == 1.0
    assert (
        result["judge_vs_annotator"]["bob"]["observed_agreement"]
        == result["between_annotators"]["ann, bob"]["observed_agreement"]
        == 10 / 12
    )
    output = built.run("judge", "calibrate", str(labelled))
    assert lines_with(output, ["judge, bob", "0.833"]) and "left out: 2 tied" in output


def test_calibration_of_a_lake_without_verdicts_says_what_to_do(raw: Home, tmp_path: Path) -> None:
    one_error(
        raw.mvl("judge", "label-sheet", "--out", str(tmp_path / "x.csv")), "nothing is judged yet", "--until judged"
    )


def test_probes_are_asked_once_and_scored_by_fault_and_family(built: Home, copy_of: Callable[[Home], Home]) -> None:
    home = copy_of(built)
    output = home.run("judge", "probe", "--family", "math", "--family", "caption")
    for fault in PROBE_FAULTS:
        assert lines_with(output, ["fault", fault, "% ("])
    assert lines_with(output, ["family", "math", " 27 ", "% ("]) and not lines_with(output, ["family", "chart"])
    assert "saw no image" in output
    assert lines_with(output, ["(keep rule)"]) and lines_with(output, ["0.95", "% ("])
    home.profile(model_base_urls=["http://127.0.0.1:9/v1"])
    (result,) = home.json("judge", "probe", "--family", "math", "--min-p-yes", "0.9").values()
    assert len(result["pairs"]) == 27 and all(pair["responses"]["good"]["p_yes"] for pair in result["pairs"])
    # The fake server is never that sure.
    overall = result["scores"]["all"]["all"]
    assert (overall["n_pairs"], overall["detection"]["share"], overall["false_alarm"]["count"]) == (27, 1.0, 27)
    assert overall["detection"]["interval"][0] > 0.85
    by_threshold = {score["min_p_yes"]: score for score in result["by_threshold"]}
    assert by_threshold[0.9]["detection"] == {"count": 27, "n": 27}
    one_error(home.mvl("judge", "probe", "--family", "poems"), "no probes of the family poems", "math")


def test_status_shows_keep_rates_without_those_of_the_paper_where_the_rule_is_another(built: Home) -> None:
    output = built.run("status")
    assert lines_with(output, ["category", "judged", "kept", "paper"])
    assert f"{get_paper_keep_rate('caption'):.3f}" not in output


def test_the_papers_rates_are_those_of_its_table() -> None:
    assert round(1 - get_paper_keep_rate("ocr"), 3) == 0.549
    assert round(1 - get_paper_keep_rate("chart"), 3) == 0.484
    assert round(1 - get_paper_keep_rate("domain"), 3) == 0.104


def test_every_command_of_the_group_explains_itself() -> None:
    for name in ("label-sheet", "calibrate", "probe"):
        assert "Usage:" in CliRunner().invoke(cli, ["judge", name, "--help"]).output
