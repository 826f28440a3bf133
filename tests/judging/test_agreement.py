"""What the card says of the judge and the people who labelled its pairs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from mvl_assets.config.profile import load_profile
from mvl_assets.export.dataset_card import render_dataset_card
from mvl_assets.judging.agreement import describe_agreement
from mvl_assets.judging.label_history import LabelHistory, StoredLabel
from tests.export.small_lake import fill_judged_lake


def test_the_card_says_how_far_judge_and_people_agree(tmp_path: Path) -> None:
    lake = fill_judged_lake(tmp_path / "lake")
    profile = load_profile("demo")
    assert describe_agreement(lake) == "" and "No person has labelled any" in render_dataset_card(lake, profile, [])
    judged = list(lake.get_table("judged/chart").iter_rows(["rewrite_id", "sample_id", "source", "all_yes"]))
    for number, row in enumerate(judged):
        for annotator, is_good in (("Ann Example", row["all_yes"]), ("Bob", row["all_yes"] and number > 0)):
            label = "good" if is_good else "bad"
            created_at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
            ids = (row["rewrite_id"], row["sample_id"], row["source"], "chart")
            LabelHistory(lake).append(StoredLabel(*ids, annotator, label, (), "", True, created_at))
    agreement = describe_agreement(lake)
    card = render_dataset_card(lake, profile, [], agreement=agreement)
    assert agreement in card and "4 judged pairs were labelled by 2 people" in agreement
    (two_people,) = [line for line in agreement.splitlines() if "two people" in line]
    assert [cell.strip() for cell in two_people.strip("|").split("|")][1:] == ["4", "0.75", "0.50"]
    assert "Ann" not in card and "No person has labelled" not in card
