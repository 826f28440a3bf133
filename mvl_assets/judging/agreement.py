"""How far judges agree with the people who labelled pairs of a lake, as a text for its dataset card."""

from __future__ import annotations

from mvl_assets.common.markdown import format_markdown_table
from mvl_assets.judging.calibrate import calibrate, load_labelled_pairs
from mvl_assets.judging.kappa import Confusion
from mvl_assets.judging.label_history import LabelHistory, to_calibration_labels
from mvl_assets.lake.lake import Lake


def describe_agreement(lake: Lake) -> str:
    """Return what the labels of the lake say of its judge, without the names of annotators; empty without labels."""
    labels = to_calibration_labels(LabelHistory(lake).read_newest())
    if not load_labelled_pairs(lake, labels)[0]:
        return ""
    calibration = calibrate(lake, labels)
    confusions = {"judge and people, all": calibration.judge_vs_majority}
    confusions |= {f"judge and people, {name}": confusion for name, confusion in calibration.by_category.items()}
    numbered = enumerate(calibration.between_annotators.values(), 1)
    confusions |= {f"two people ({number})": confusion for number, confusion in numbered}
    n_people = len(calibration.judge_vs_annotator)
    people = "a person" if n_people == 1 else f"{n_people} people"
    return (
        f"{calibration.n_pairs:,} judged pairs were labelled by {people}. Whether the judge says Yes to all criteria,"
        " and whether most of them find the pair good:\n\n"
        + format_markdown_table([_describe_confusion(name, confusion) for name, confusion in confusions.items()])
    )


def _describe_confusion(name: str, confusion: Confusion) -> dict[str, object]:
    shares = {"agree": confusion.observed_agreement, "Cohen's kappa": confusion.kappa}
    texts = {column: "" if share is None else f"{share:.2f}" for column, share in shares.items()}
    return {"who": name, "pairs": confusion.n, **texts}
