"""Labels in the lake: the table `labels`, to which every label is added and in which none is ever changed.

What an annotator says of a pair is the newest row of both; older ones are its history. A label without a value takes
the one before back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.judging.keep import BAD, GOOD, UNSURE
from mvl_assets.judging.labels import Label
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import LABELS

LABEL_NAMES = (GOOD, BAD, UNSURE)

COMMITS_PER_COMPACTION = 32
"""Every label is a commit of its own, and leaves a small file; they are joined every now and then."""


@dataclass(frozen=True, slots=True)
class StoredLabel:
    """A row of the table; `label` is None where an annotator takes it back."""

    rewrite_id: str
    sample_id: str
    source: str
    category: str
    annotator: str
    label: str | None
    reasons: tuple[str, ...]
    note: str
    is_blind: bool
    created_at: dt.datetime


class LabelHistory:
    """The labels of a lake."""

    def __init__(self, lake: Lake) -> None:
        self._table = lake.get_table(LABELS.name)
        self._n_commits = 0

    @property
    def version(self) -> int:
        """Goes up with every label; 0 before the first."""
        return self._table.version

    def append(self, label: StoredLabel) -> None:
        """Store a label durably, in one commit."""
        row = {
            **{name: getattr(label, name) for name in StoredLabel.__slots__},
            "label_id": compute_digest(label.rewrite_id, label.annotator, label.created_at.isoformat()),
            "reasons": list(label.reasons),
        }
        rows = pa.Table.from_pylist([row], schema=LABELS.columns)
        self._table.append_fragments([self._table.write_fragments([rows], label.source)])
        self._n_commits += 1
        if self._n_commits % COMMITS_PER_COMPACTION == 0:
            self._table.compact_partition(label.source)

    def read_history(self, rewrite_id: str | None = None) -> list[StoredLabel]:
        """Return all labels, or those of one pair, oldest first."""
        rows = (row for row in self._table.iter_rows() if rewrite_id in (None, row["rewrite_id"]))
        return [_to_label(row) for row in sorted(rows, key=lambda row: (row["created_at"], row["label_id"]))]

    def read_resolved(self, source: str) -> dict[str, str]:
        """Return what people say of the pairs of a source, by rewrite: see `resolve_labels`."""
        rows = map(_to_label, self._table.iter_rows(partition_key=source))
        return resolve_labels(select_newest(sorted(rows, key=lambda label: label.created_at)))

    def read_newest(self) -> list[StoredLabel]:
        """Return what each annotator says of each pair now, oldest first."""
        return select_newest(self.read_history())


def select_newest(history: Iterable[StoredLabel]) -> list[StoredLabel]:
    """Return the last label of each pair and annotator, without those that were taken back."""
    newest: dict[tuple[str, str], StoredLabel] = {}
    for label in history:
        newest.pop((label.rewrite_id, label.annotator), None)
        newest[label.rewrite_id, label.annotator] = label
    return [label for label in newest.values() if label.label is not None]


def resolve_labels(labels: Iterable[StoredLabel]) -> dict[str, str]:
    """Return one label for each labelled pair: good or bad by most of those who say so, and unsure where they tie.

    Args:
        labels: The last label of each pair and annotator.
    """
    balances: dict[str, int] = {}
    for label in labels:
        vote = {GOOD: 1, BAD: -1}.get(label.label or "", 0)
        balances[label.rewrite_id] = balances.get(label.rewrite_id, 0) + vote
    return {
        rewrite_id: GOOD if balance > 0 else BAD if balance < 0 else UNSURE for rewrite_id, balance in balances.items()
    }


def to_calibration_labels(labels: Sequence[StoredLabel]) -> list[Label]:
    """Return the labels that say good or bad: who is unsure agrees with nobody."""
    return [Label(label.rewrite_id, label.annotator, label.label == GOOD) for label in labels if label.label != UNSURE]


def _to_label(row: dict[str, Any]) -> StoredLabel:
    values = {name: row[name] for name in StoredLabel.__slots__}
    return StoredLabel(**values | {"reasons": tuple(row["reasons"] or ()), "note": row["note"] or ""})
