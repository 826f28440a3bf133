"""Pairs of samples that say nearly the same, found by hashes and verified by pixels and words.

Two samples are compared if they have the same number of images and the first ones may be copies, or if both have none.
Their images are compared one to one, in order, and the worst counts. The scores are stored, whatever the rules say of
them, and a pair is never verified again: the cost of a run is that of the contents that are new.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.curation.image_comparer import ImageComparer
from mvl_assets.curation.text_overlap import ComparableText, TextScores, build_comparable_text, compare_texts
from mvl_assets.curation.text_sketch import SKETCH_LENGTH, compute_word_pair_sketches, compute_word_sketches
from mvl_assets.execution.executor import Executor
from mvl_assets.execution.processes import ProcessExecutor
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import COMPARED, IMAGE_PAIRS, SAMPLE_PAIRS
from mvl_assets.lake.table import Table
from mvl_assets.lake_queries.near_duplicates import NearSearch
from mvl_assets.media.copy_detection import MIN_CORRELATION, ImageScores

MIN_STORED_CORRELATION, MIN_STORED_OVERLAP = MIN_CORRELATION, 0.4
"""Pairs below these are not stored: no sensible rule takes them."""

MIN_TEXT_WORDS = 8
"""Words that say something, without which two texts without images are not compared."""

COMMIT_PAIRS = 50_000
"""Verified pairs that a kill can lose, about."""

MIN_SHARED_CONTENTS = 1 << 16
"""New contents from which on the executor sketches them: its processes take seconds to start."""


@dataclass(frozen=True, slots=True)
class NearReport:
    """What was compared for the first time, and how many pairs of it were verified and are stored."""

    n_contents: int = 0
    n_image_candidates: int = 0
    n_image_pairs: int = 0
    n_sample_candidates: int = 0
    n_sample_pairs: int = 0


class PairLog:
    """Appends rows to a table of pairs, in commits of about `COMMIT_PAIRS`."""

    def __init__(self, table: Table, run_id: str) -> None:
        self.n_pairs = 0
        self.n_candidates = 0
        self._table = table
        self._run_id = run_id
        self._rows: list[dict[str, Any]] = []

    def add(self, rows: list[dict[str, Any]], n_candidates: int) -> None:
        """Take the rows of pairs that are like each other, among so many candidates."""
        self.n_candidates += n_candidates
        self.n_pairs += len(rows)
        self._rows.extend({**row, "run_id": self._run_id} for row in rows)
        if len(self._rows) >= COMMIT_PAIRS:
            self.flush()

    def flush(self) -> None:
        """Commit what was taken."""
        if self._rows:
            rows = pa.Table.from_pylist(self._rows, schema=self._table.spec.columns)
            self._table.append_fragments([self._table.write_fragments([rows])])
            self._rows = []


def compare_new_samples(lake: Lake, search: NearSearch, *, run_id: str, executor: Executor) -> NearReport:
    """Compare the contents that were never compared with all others, and store the scores.

    Killed at any point and run again, it compares what was not stored and ends with the same rows.

    Args:
        lake: The lake.
        search: Finds the contents and their candidates.
        run_id: Stored with every row.
        executor: Sketches the texts where there are many.
    """
    if not search.n_new:
        return NearReport()
    sketcher = executor if search.n_new >= MIN_SHARED_CONTENTS else ProcessExecutor(1)
    with closing(sketcher.run(compute_content_sketches, search.iter_new_contents())) as sketched_contents:
        for contents, sketches in sketched_contents:
            search.add_sketches(contents, sketches)
    comparer = ImageComparer(lake.images)
    image_log = PairLog(lake.get_table(IMAGE_PAIRS.name), run_id)
    for candidates in search.iter_image_pairs():
        image_log.add(_verify_images(comparer, candidates.to_pylist()), len(candidates))
    image_log.flush()
    search.load_image_pairs()
    search.load_old_contents()
    sample_log = PairLog(lake.get_table(SAMPLE_PAIRS.name), run_id)
    texts = TextLookup(search, comparer)
    for candidates in search.iter_sample_pairs():
        sample_log.add(texts.verify(candidates.to_pylist()), len(candidates))
    sample_log.flush()
    return NearReport(
        search.n_new, image_log.n_candidates, image_log.n_pairs, sample_log.n_candidates, sample_log.n_pairs
    )


def record_compared(lake: Lake, search: NearSearch, *, run_id: str) -> None:
    """Store which contents are compared and need not be looked at again, once what came of it is published."""
    table = lake.get_table(COMPARED.name)
    batches = (rows.append_column("run_id", pa.repeat(pa.scalar(run_id), len(rows))) for rows in search.iter_compared())
    table.append_fragments([table.write_fragments(batches)])


def compute_content_sketches(contents: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Return the contents without their texts, and the sketches of these (contents, `SKETCH_LENGTH`)."""
    conversations = contents["conversations"].to_pylist()
    has_images = contents["n_images"].to_numpy() > 0
    sketches = np.empty((len(conversations), SKETCH_LENGTH), dtype=np.int64)
    for is_member, sketch in ((has_images, compute_word_sketches), (~has_images, compute_word_pair_sketches)):
        sketches[is_member] = sketch([conversations[row] for row in np.flatnonzero(is_member)])
    return contents.drop_columns(["conversations", "n_images"]), sketches


def _verify_images(comparer: ImageComparer, candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    scores = comparer.compare([(row["image_id"], row["other_image_id"]) for row in candidates])
    return [
        {**row, **build_score_columns(score), "pair_id": compute_digest(row["image_id"], row["other_image_id"])}
        for row, score in zip(candidates, scores, strict=True)
        if score is not None and score.correlation >= MIN_STORED_CORRELATION
    ]


def build_score_columns(scores: ImageScores) -> dict[str, float]:
    """Return the scores of two images by the names of their columns."""
    names = ("correlation", "block_difference", "lost_edges")
    return dict(zip(names, map(float, astuple(scores)), strict=True))


class TextLookup:
    """Verifies pairs of contents by their words and, where they have several images, by the others."""

    def __init__(self, search: NearSearch, comparer: ImageComparer) -> None:
        self._search = search
        self._comparer = comparer

    def verify(self, candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of `curation/sample_pairs` for those candidates that are alike."""
        version_ids = {row[name] for row in candidates for name in ("version_id", "other_version_id")}
        samples = self._search.read_samples(sorted(version_ids), ["version_id", "conversations", "image_ids"])
        texts = {name: build_comparable_text(row["conversations"]) for name, row in samples.items()}
        alike = []
        for candidate in candidates:
            text, other = texts.get(candidate["version_id"]), texts.get(candidate["other_version_id"])
            if text is None or other is None or not _may_compare(candidate, text, other):
                continue
            scores = compare_texts(text, other)
            if scores.overlap >= MIN_STORED_OVERLAP and scores.containment > 0:
                alike.append((candidate, scores))
        rows = [self._build_row(candidate, scores, samples) for candidate, scores in alike]
        return [row for row in rows if row["correlation"] is None or row["correlation"] >= MIN_STORED_CORRELATION]

    def _build_row(
        self, candidate: dict[str, Any], scores: TextScores, samples: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        columns = {name: candidate[name] for name in ("correlation", "block_difference", "lost_edges")}
        if candidate["n_images"] > 1:
            columns = self._compare_more_images(candidate, samples)
        return {
            "pair_id": compute_digest(candidate["fingerprint"], candidate["other_fingerprint"]),
            "fingerprint": candidate["fingerprint"],
            "other_fingerprint": candidate["other_fingerprint"],
            "n_images": candidate["n_images"],
            **columns,
            "text_overlap": scores.overlap,
            "text_containment": scores.containment,
        }

    def _compare_more_images(
        self, candidate: dict[str, Any], samples: dict[str, dict[str, Any]]
    ) -> dict[str, float | None]:
        """Return the worst scores of several images; null if all are the same."""
        ids, other_ids = (samples[candidate[name]]["image_ids"] for name in ("version_id", "other_version_id"))
        pairs = list(zip(ids, other_ids, strict=True))
        if ids == other_ids:
            return dict.fromkeys(("correlation", "block_difference", "lost_edges"))
        scores = [score or ImageScores(-1.0, np.inf, np.inf) for score in self._comparer.compare(pairs)]
        return {
            "correlation": min(score.correlation for score in scores),
            "block_difference": max(score.block_difference for score in scores),
            "lost_edges": max(score.lost_edges for score in scores),
        }


def _may_compare(candidate: dict[str, Any], text: ComparableText, other: ComparableText) -> bool:
    """Without images, a few words are too little to know a text by."""
    return candidate["n_images"] > 0 or min(len(text.content), len(other.content)) >= MIN_TEXT_WORDS
