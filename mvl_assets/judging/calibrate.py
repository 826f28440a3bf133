"""The judge against people: agreement, where they differ, and the threshold of P(yes) that people would set.

As in the paper (arXiv 2412.05237, appendix on filtering: 60 items, three annotators): Cohen's kappa between the model
and each annotator, between the annotators, and over the groups in which the model takes one annotator's place. Belongs
here: the figures. How labels are read is `labels.py`, what kappa is `kappa.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import mean

from mvl_assets.errors import MvlError
from mvl_assets.judging.kappa import Confusion, confusion
from mvl_assets.judging.labels import Label
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

FOLDS = 10
IDS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Item:
    """One judged pair with its labels by annotator."""

    rewrite_id: str
    category: str
    yes: bool
    p_yes: float | None
    labels: Mapping[str, bool]

    @property
    def good(self) -> bool | None:
        """What most annotators say; None where they are split."""
        votes = sum(self.labels.values())
        return None if 2 * votes == len(self.labels) else 2 * votes > len(self.labels)


@dataclass(frozen=True, slots=True)
class Threshold:
    """`p_yes >= value` as a keep rule: the highest kappa with the majority among the thresholds that keep at least
    `min_keep` of the labelled pairs; of equal ones the one that keeps most.

    `found` is its agreement with the very labels it was chosen on; `held_out` on labels that the choice had not seen
    (ten parts, each judged by the threshold of the nine others): believe that one.
    """

    value: float
    min_keep: float
    keeps: float
    found: Confusion
    held_out: Confusion


@dataclass(frozen=True, slots=True)
class Calibration:
    """`model` compares all_yes with the majority, `annotators` with each annotator; `between` are pairs of annotators.
    `in_place` is the mean kappa over the groups in which the model replaces one annotator; None with fewer than two
    annotators. `split` items have no majority, `unknown` labels belong to no judged row."""

    items: int
    split: int
    unknown: int
    model: Confusion
    annotators: Mapping[str, Confusion]
    between: Mapping[tuple[str, str], Confusion]
    in_place: float | None
    categories: Mapping[str, Confusion]
    threshold: Threshold | None


def calibrate(lake: Lake, labels: Sequence[Label], min_keep: float = 0.1) -> Calibration:
    """Compares what is in `judged/*` now with the labels. Raises `MvlError` when no label belongs to a judged row."""
    items, unknown = items_of(lake, labels)
    if not items:
        raise MvlError(
            "none of the labelled rows is judged",
            hint="the sheet is of another lake, or the pairs were rewritten since: `mvl judge sample` writes a new one",
        )
    people = sorted({name for item in items for name in item.labels})
    against = {name: _against(items, name) for name in people}
    between = {(a, b): _between(items, a, b) for a, b in combinations(people, 2)}
    settled = [(item, item.good) for item in items if item.good is not None]
    by_category: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for item, good in settled:
        by_category[item.category].append((item.yes, good))
    scored = [(item.p_yes, good) for item, good in settled if item.p_yes is not None]
    return Calibration(
        items=len(items),
        split=len(items) - len(settled),
        unknown=unknown,
        model=confusion((item.yes, good) for item, good in settled),
        annotators=against,
        between=between,
        in_place=_in_place(people, against, between),
        categories={name: confusion(pairs) for name, pairs in sorted(by_category.items())},
        threshold=suggest(scored, min_keep),
    )


def items_of(lake: Lake, labels: Iterable[Label]) -> tuple[list[Item], int]:
    """The judged pairs the labels are about, and how many labels are about none. Memory holds the labelled pairs."""
    given: dict[str, dict[str, bool]] = defaultdict(dict)
    for label in labels:
        given[label.row_id][label.annotator] = label.good
    columns = ["judged_id", "rewrite_id", "category", "all_yes", "p_yes"]
    items: dict[str, Item] = {}
    known: set[str] = set()
    for name in lake.names("judged"):
        for ids in _parts(sorted(given)):
            condition = f"{sql.within('rewrite_id', ids)} OR {sql.within('judged_id', ids)}"
            for row in lake.table(name).rows(columns, condition):
                named = [row[key] for key in ("rewrite_id", "judged_id") if row[key] in given]
                known.update(named)
                said = {who: good for key in named for who, good in given[key].items()}
                items[row["rewrite_id"]] = Item(row["rewrite_id"], row["category"], row["all_yes"], row["p_yes"], said)
    unknown = sum(len(said) for key, said in given.items() if key not in known)
    return sorted(items.values(), key=lambda item: item.rewrite_id), unknown


def suggest(scored: Collection[tuple[float, bool]], min_keep: float) -> Threshold | None:
    """The threshold for (P(yes), label) pairs; None where all labels or all probabilities are equal."""
    listed = list(scored)
    best = _best(listed, min_keep)
    if best is None:
        return None
    held_out: list[tuple[bool, bool]] = []
    for fold in range(FOLDS):
        rest = [pair for place, pair in enumerate(listed) if place % FOLDS != fold]
        value = _best(rest, min_keep)
        held_out += [(value is None or p >= value, good) for p, good in listed[fold::FOLDS]]
    found = confusion((p >= best, good) for p, good in listed)
    keeps = sum(p >= best for p, _ in listed) / len(listed)
    return Threshold(best, min_keep, keeps, found, confusion(held_out))


def _best(scored: Sequence[tuple[float, bool]], min_keep: float) -> float | None:
    """Between two neighbouring probabilities, half-way."""
    good_in_all = sum(good for _, good in scored)
    if len({p for p, _ in scored}) < 2 or good_in_all in (0, len(scored)):
        return None
    ordered = sorted(scored, reverse=True)
    best: tuple[float, int, float] | None = None
    kept_good = 0
    for kept, ((p, good), (following, _)) in enumerate(pairwise(ordered), 1):
        kept_good += good
        if p == following or kept < min_keep * len(scored):
            continue
        bad = kept - kept_good
        agreement = Confusion(kept_good, bad, good_in_all - kept_good, len(scored) - good_in_all - bad)
        candidate = (agreement.kappa or 0.0, kept, (p + following) / 2)
        best = candidate if best is None else max(best, candidate)
    return None if best is None else best[2]


def _against(items: Sequence[Item], annotator: str) -> Confusion:
    return confusion((item.yes, item.labels[annotator]) for item in items if annotator in item.labels)


def _between(items: Sequence[Item], one: str, other: str) -> Confusion:
    return confusion((i.labels[one], i.labels[other]) for i in items if one in i.labels and other in i.labels)


def _in_place(
    people: Sequence[str], against: Mapping[str, Confusion], between: Mapping[tuple[str, str], Confusion]
) -> float | None:
    """Each annotator in turn gives way to the model; the mean kappa of all pairs of each group, and of the groups."""
    if len(people) < 2:
        return None
    groups = []
    for gone in people:
        pairs = [against[name].kappa for name in people if name != gone]
        pairs += [found.kappa for names, found in between.items() if gone not in names]
        known = [kappa for kappa in pairs if kappa is not None]
        if known:
            groups.append(mean(known))
    return mean(groups) if groups else None


def _parts(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE))
