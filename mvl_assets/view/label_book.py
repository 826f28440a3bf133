"""The labels of a lake while its pages are looked at: the newest ones in memory, queues, agreement."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mvl_assets.errors import MvlError
from mvl_assets.judging.calibrate import Calibration, calibrate, load_labelled_pairs
from mvl_assets.judging.label_history import (
    LABEL_NAMES,
    LabelHistory,
    StoredLabel,
    select_newest,
    to_calibration_labels,
)
from mvl_assets.judging.labels import draw_label_set
from mvl_assets.judging.probes.contrast_pairs import PROBE_FAULTS
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.pair_index.index import PairIndex

MAX_NOTE_CHARS, MAX_NAME_CHARS = 2000, 60


@dataclass(frozen=True, slots=True)
class _Loaded:
    version: int
    labels: list[StoredLabel]
    by_rewrite: dict[str, str]


class LabelBook:
    """Labels to read and to add. Methods may be called from several threads."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._history = LabelHistory(lake)
        self._loaded = _Loaded(-1, [], {})
        self._lock = threading.Lock()
        self.draw_queue = lru_cache(8)(self._draw_queue)

    @property
    def version(self) -> int:
        """Version of the labels that were read last."""
        return self._load().version

    @property
    def by_rewrite(self) -> dict[str, str]:
        """The newest label of each pair that has one, whoever gave it."""
        return self._load().by_rewrite

    def read_labels_of(self, rewrite_id: str) -> list[StoredLabel]:
        """Return what each annotator says of a pair now."""
        return [label for label in self._load().labels if label.rewrite_id == rewrite_id]

    def add(self, row: dict[str, Any], values: dict[str, Any]) -> StoredLabel:
        """Store what a person says about a pair.

        Args:
            row: The pair's row in the index.
            values: `annotator`, `label` (None takes it back), `reasons`, `note` and `is_blind`, as a browser sent them.

        Raises:
            MvlError: A value is not what it should be.
        """
        label = _check_label(row, values)
        with self._lock:
            self._history.append(label)
        return label

    def find_ordinals(self, index: PairIndex, label: str) -> np.ndarray:
        """Return the pairs with a label, ascending; `any` and `none` both mean those that have some."""
        ids = [i for i, name in self.by_rewrite.items() if label in ("any", "none") or name == label]
        return np.sort(np.array(list(index.find_ordinals("rewrite_id", ids).values()), dtype=np.int32))

    def measure_agreement(self) -> Calibration | None:
        """Compare the judge with the labels of good and bad; None while no judged pair has one."""
        labels = to_calibration_labels(self._load().labels)
        pairs, _ = load_labelled_pairs(self._lake, labels)
        return calibrate(self._lake, labels) if pairs else None

    def _draw_queue(self, n_rows: int, seed: int) -> list[str]:
        return [row["rewrite_id"] for row in draw_label_set(self._lake, n_rows, seed)]

    def _load(self) -> _Loaded:
        with self._lock:
            version = self._history.version
            if version != self._loaded.version:
                labels = select_newest(self._history.read_history())
                self._loaded = _Loaded(version, labels, {label.rewrite_id: label.label or "" for label in labels})
            return self._loaded


def _check_label(row: dict[str, Any], values: dict[str, Any]) -> StoredLabel:
    annotator, note = values.get("annotator"), values.get("note", "")
    label, reasons = values.get("label"), values.get("reasons", [])
    if not isinstance(annotator, str) or not annotator.strip() or len(annotator) > MAX_NAME_CHARS:
        raise MvlError("a label needs the name of its annotator", hint=f"1 to {MAX_NAME_CHARS} characters")
    if label is not None and label not in LABEL_NAMES:
        raise MvlError(f"no such label: {label!r}", hint=", ".join(LABEL_NAMES))
    if not isinstance(note, str) or len(note) > MAX_NOTE_CHARS:
        raise MvlError("the note is too long", hint=f"at most {MAX_NOTE_CHARS} characters")
    if not isinstance(reasons, Sequence) or not set(map(str, reasons)) <= set(PROBE_FAULTS):
        raise MvlError("no such reason", hint=", ".join(PROBE_FAULTS))
    return StoredLabel(
        **{name: row[name] for name in ("rewrite_id", "sample_id", "source", "category")},
        annotator=annotator.strip(),
        label=label,
        reasons=tuple(reason for reason in PROBE_FAULTS if reason in reasons),
        note=note.strip(),
        is_blind=values.get("is_blind") is True,
        created_at=dt.datetime.now(dt.UTC),
    )
