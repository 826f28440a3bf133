"""Labels in the lake: nothing is ever changed, the newest of each annotator counts."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mvl_assets.judging import label_history
from mvl_assets.judging.calibrate import calibrate
from mvl_assets.judging.label_history import LabelHistory, StoredLabel, to_calibration_labels
from mvl_assets.lake.lake import Lake
from tests.export.small_lake import SOURCE, fill_judged_lake

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def give(number: int, label: str | None, annotator: str = "anna", rewrite_id: str = "") -> StoredLabel:
    """A label by the number of its second."""
    return StoredLabel(
        rewrite_id or f"{number:032x}",
        "0" * 32,
        SOURCE,
        "chart",
        annotator,
        label,
        ("off_image",),
        "=HYPERLINK(<b>)",
        True,
        START + dt.timedelta(seconds=number),
    )


def test_the_newest_label_of_each_annotator_counts_and_one_may_be_taken_back(tmp_path: Path) -> None:
    history = LabelHistory(Lake(str(tmp_path)))
    one, other = "1" * 32, "2" * 32
    given = [
        give(1, "good", rewrite_id=one),
        give(2, "good", rewrite_id=other),
        give(3, "bad", rewrite_id=one),
        give(4, "unsure", "ben", rewrite_id=one),
        give(5, None, rewrite_id=other),
    ]
    for label in given:
        history.append(label)
    assert history.read_history() == given
    assert [(label.annotator, label.label) for label in history.read_newest()] == [("anna", "bad"), ("ben", "unsure")]
    assert [label.is_good for label in to_calibration_labels(history.read_newest())] == [False]


def test_small_files_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_history, "COMMITS_PER_COMPACTION", 4)
    lake = Lake(str(tmp_path))
    history = LabelHistory(lake)
    for number in range(5):
        history.append(give(number, "good"))
    assert len(lake.get_table("labels").open().get_fragments()) == 2
    assert len(history.read_newest()) == 5


def test_labels_of_the_lake_calibrate_the_judge(tmp_path: Path) -> None:
    lake = fill_judged_lake(tmp_path)
    history = LabelHistory(lake)
    for number, row in enumerate(lake.get_table("judged/chart").iter_rows(["rewrite_id", "keep"])):
        history.append(give(number, "good" if row["keep"] else "bad", rewrite_id=row["rewrite_id"]))
    calibration = calibrate(lake, to_calibration_labels(history.read_newest()))
    assert calibration.n_pairs == 4 and calibration.by_category["chart"].kappa == 1.0
