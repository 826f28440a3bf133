"""Scores of training rows against the items of benchmarks: the image is the anchor, words come second.

A row and an item that show an image and a verified copy of it are compared by their questions, each turn of the row on
its own. A row of any kind whose text holds the rare words of an item's question is a match by its text, with the item's
answer as evidence. Scores are stored, whatever the rules say of them, and nothing is scored twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.config.benchmarks import BenchmarkItems
from mvl_assets.curation.image_comparer import ImageComparer
from mvl_assets.curation.near_duplicates import MIN_STORED_CORRELATION, PairLog, build_score_columns
from mvl_assets.curation.ngram_index import (
    INDEX_VERSION,
    IndexArrays,
    IndexedItem,
    NgramIndex,
    TextMatch,
    build_index_arrays,
)
from mvl_assets.curation.text_overlap import (
    ComparableText,
    QuestionScores,
    build_comparable_text,
    compare_questions,
    compute_answer_overlap,
)
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import (
    BENCHMARK_COMPARED,
    BENCHMARK_IMAGE_PAIRS,
    BENCHMARK_MATCHES,
    BENCHMARK_WAVES,
    ITEM_SIMILARITY,
)
from mvl_assets.lake_queries.benchmarks.matched_basis import record_basis
from mvl_assets.lake_queries.benchmarks.search import BenchmarkSearch
from mvl_assets.lake_queries.benchmarks.stored_index import read_index_arrays, write_index_arrays

SCORING_VERSION = 2
"""Increased when the same rows and items may get other scores, so that they are matched again."""

MIN_STORED_CONTAINMENT = 0.5
"""Pairs that show one image and have less of a question in common are stored for the first item of the image alone."""

MAX_CACHED_ITEMS = 4096
"""Items whose words are kept."""

_IMAGE_COLUMNS = ("image_id", "item_image_id", "correlation", "block_difference", "lost_edges")
_SCORE_NAMES = tuple(name for name, _ in ITEM_SIMILARITY)


@dataclass(frozen=True, slots=True)
class MatchReport:
    """What was matched for the first time, and how many matches of it are stored."""

    n_contents: int = 0
    n_image_candidates: int = 0
    n_image_pairs: int = 0
    n_image_matches: int = 0
    n_text_matches: int = 0


@dataclass(frozen=True, slots=True)
class ItemText:
    """What is compared of an item; `answer` is None where it is not published."""

    text: ComparableText
    answer: frozenset[str] | None


def describe_scoring(items: BenchmarkItems) -> list[object]:
    """Return what the scores of a benchmark's items depend on besides them."""
    return [SCORING_VERSION, items.has_answers]


def match_new_contents(
    lake: Lake, search: BenchmarkSearch, benchmarks: Mapping[str, BenchmarkItems], *, run_id: str
) -> MatchReport:
    """Match contents with the benchmarks that they have not met, and store the scores.

    Killed at any point and run again, it matches what was not stored and ends with the same rows.
    """
    if not search.benchmarks:
        return MatchReport()
    n_contents = search.count_pending()
    if not n_contents:
        _remove_outdated(lake, search)
        if search.scope.has_changes:
            record_basis(lake, search.scope.basis, run_id=run_id)
        return MatchReport()
    matcher = Matcher(lake, search, benchmarks, run_id)
    image_log = matcher.compare_images()
    n_image_matches = matcher.match_images()
    n_text_matches = matcher.match_texts()
    _record_waves(lake, search, run_id)
    _remove_outdated(lake, search)
    record_basis(lake, search.scope.basis, run_id=run_id)
    return MatchReport(n_contents, image_log.n_candidates, image_log.n_pairs, n_image_matches, n_text_matches)


class Matcher:
    """Finds and stores the matches of one search."""

    def __init__(
        self, lake: Lake, search: BenchmarkSearch, benchmarks: Mapping[str, BenchmarkItems], run_id: str
    ) -> None:
        self._lake = lake
        self._search = search
        self._benchmarks = benchmarks
        self._run_id = run_id
        self._states = {benchmark.source: benchmark.items_state for benchmark in search.benchmarks}
        self._samples = lake.get_index("samples")
        self._stored_ids = search.load_match_ids()
        self._item_texts: OrderedDict[str, ItemText] = OrderedDict()
        self._log = PairLog(lake.get_table(BENCHMARK_MATCHES.name), run_id)

    def compare_images(self) -> PairLog:
        """Verify the images that may be copies by their pixels, and store the scores."""
        comparer = ImageComparer(self._lake.images)
        log = PairLog(self._lake.get_table(BENCHMARK_IMAGE_PAIRS.name), self._run_id)
        for candidates in self._search.iter_image_pairs():
            rows = candidates.to_pylist()
            scores = comparer.compare([(row["image_id"], row["item_image_id"]) for row in rows])
            log.add(
                [
                    {
                        **row,
                        **build_score_columns(score),
                        "pair_id": compute_digest(row["image_id"], row["item_image_id"]),
                    }
                    for row, score in zip(rows, scores, strict=True)
                    if score is not None and score.correlation >= MIN_STORED_CORRELATION
                ],
                len(rows),
            )
        log.flush()
        return log

    def match_images(self) -> int:
        """Compare the questions of rows and items that show an image and a copy of it; return the matches."""
        n_before = self._log.n_pairs
        for pairs in self._search.iter_item_pairs():
            rows = pairs.to_pylist()
            version_ids = sorted({row["version_id"] for row in rows})
            samples = self._samples.read_rows(version_ids, ["version_id", "conversations"])
            turn_pairs = {name: _split_turns(row["conversations"]) for name, row in samples.items()}
            self._load_item_texts({row["item_version_id"]: row["source"] for row in rows})
            matches = [
                self._build_image_match(row, turn_pairs[row["version_id"]], self._item_texts[row["item_version_id"]])
                for row in rows
            ]
            kept = [match for row, match in zip(rows, matches, strict=True) if row["is_first"] or _has_question(match)]
            self._add(kept, len(rows))
        self._log.flush()
        return self._log.n_pairs - n_before

    def match_texts(self) -> int:
        """Look for the items' questions in all texts; return the matches."""
        n_before = self._log.n_pairs
        index = NgramIndex(self._load_index_arrays())
        items: dict[int, dict[str, str]] = {}
        missing = {bits: set(sources) for bits, sources in self._search.list_missing().items()}
        for batch in self._search.iter_pending_texts():
            bits, conversations = batch["bits"].to_pylist(), batch["conversations"].to_pylist()
            held = list(index.iter_matches(["\n".join([turn["value"] for turn in c]) for c in conversations]))
            if new_items := {match.item for match in held} - items.keys():
                items |= self._search.read_items(new_items)
            matches = [match for match in held if items[match.item]["source"] in missing[bits[match.text]]]
            if matches:
                self._load_item_texts({items[m.item]["version_id"]: items[m.item]["source"] for m in matches})
            fingerprints = batch["fingerprint"]
            self._add(
                [
                    self._build_text_match(fingerprints[m.text].as_py(), conversations[m.text], items[m.item], m)
                    for m in matches
                ],
                len(batch),
            )
        self._log.flush()
        return self._log.n_pairs - n_before

    def _load_index_arrays(self) -> IndexArrays:
        """Return the index of the items: the stored one, or a new one if they are others, which is stored."""
        index_id = compute_digest("benchmark index", INDEX_VERSION, sorted(self._states.items()))
        stored = read_index_arrays(self._lake, index_id)
        names = [field.name for field in fields(IndexArrays)]
        if stored.keys() == set(names):
            return IndexArrays(**stored)
        arrays = build_index_arrays(self._iter_indexed())
        write_index_arrays(self._lake, index_id, {name: getattr(arrays, name) for name in names}, run_id=self._run_id)
        return arrays

    def _iter_indexed(self) -> Iterator[IndexedItem]:
        """Yield the items with their questions."""
        for batch in self._search.iter_items():
            for row in batch.to_pylist():
                questions = [turn["value"] for turn in row["conversations"] if turn["from"] == "human"]
                yield IndexedItem(row["item"], row["source"], "\n".join(questions))

    def _add(self, matches: Sequence[dict[str, Any]], n_candidates: int) -> None:
        """Store the matches that are not stored yet, of a run that was killed."""
        self._log.add([match for match in matches if match["match_id"] not in self._stored_ids], n_candidates)

    def _load_item_texts(self, sources: Mapping[str, str]) -> None:
        """Keep the words of these items, given by version id with their sources."""
        missing = sorted(sources.keys() - self._item_texts.keys())
        for version_id, row in self._samples.read_rows(missing, ["version_id", "conversations"]).items():
            self._item_texts[version_id] = self._build_item_text(row["conversations"], sources[version_id])
        for version_id in sources:
            self._item_texts.move_to_end(version_id)
        while len(self._item_texts) > max(MAX_CACHED_ITEMS, len(sources)):
            self._item_texts.popitem(last=False)

    def _build_item_text(self, conversations: Sequence[Mapping[str, str]], source: str) -> ItemText:
        text = build_comparable_text(conversations)
        return ItemText(text, text.answer.content if self._benchmarks[source].has_answers else None)

    def _build_image_match(
        self, row: Mapping[str, Any], turns: Sequence[ComparableText], item: ItemText
    ) -> dict[str, Any]:
        """Return the match of a row and an item by the turn whose question is most like the item's."""
        scores = [(compare_questions(turn.question, item.text.question), turn.answer.content) for turn in turns]
        best, answers = max(
            scores, key=lambda pair: (pair[0].containment, pair[0].overlap), default=(QuestionScores(0, 0), frozenset())
        )
        return self._build_match(
            "image",
            row["fingerprint"],
            row["item_id"],
            row["source"],
            {
                **{name: row[name] for name in _IMAGE_COLUMNS},
                "question_containment": best.containment,
                "question_overlap": best.overlap,
                "answer_overlap": None if item.answer is None else compute_answer_overlap(answers, item.answer),
            },
        )

    def _build_text_match(
        self,
        fingerprint: str,
        conversation: Sequence[Mapping[str, str]],
        item: Mapping[str, str],
        match: TextMatch,
    ) -> dict[str, Any]:
        answer = self._item_texts[item["version_id"]].answer
        answers = build_comparable_text(conversation).answer.content
        scores = {
            "ngram_overlap": match.overlap,
            "n_tokens": match.n_tokens,
            "answer_overlap": None if answer is None else compute_answer_overlap(answers, answer),
        }
        return self._build_match("text", fingerprint, item["item_id"], item["source"], scores)

    def _build_match(
        self, evidence: str, fingerprint: str, item_id: str, source: str, scores: Mapping[str, Any]
    ) -> dict[str, Any]:
        state = self._states[source]
        return {
            "match_id": compute_digest("benchmark match", evidence, fingerprint, item_id, state),
            "fingerprint": fingerprint,
            "item_id": item_id,
            "source": source,
            "items_state": state,
            "evidence": evidence,
            **dict.fromkeys(("image_id", "item_image_id", *_SCORE_NAMES)),
            **scores,
        }


def _split_turns(conversations: Sequence[Mapping[str, str]]) -> list[ComparableText]:
    """Return each question of a conversation with its answer; several turns of one side in a row are one."""
    pairs: list[list[Mapping[str, str]]] = []
    for turn in conversations:
        if turn["from"] == "human" and (not pairs or pairs[-1][-1]["from"] != "human"):
            pairs.append([])
        if pairs:
            pairs[-1].append(turn)
    return [build_comparable_text(pair) for pair in pairs]


def _has_question(match: Mapping[str, Any]) -> bool:
    return float(match["question_containment"]) >= MIN_STORED_CONTAINMENT


def _record_waves(lake: Lake, search: BenchmarkSearch, run_id: str) -> None:
    """Store what has met what, once the matches are stored."""
    states = {benchmark.source: benchmark.items_state for benchmark in search.benchmarks}
    waves = {bits: {source: states[source] for source in sources} for bits, sources in search.list_missing().items()}
    wave_ids = {bits: compute_digest("wave", sorted(wave.items())) for bits, wave in waves.items()}
    table = lake.get_table(BENCHMARK_WAVES.name)
    rows = [
        {
            "member_id": compute_digest(wave_ids[bits], source),
            "wave_id": wave_ids[bits],
            "source": source,
            "items_state": state,
            "run_id": run_id,
        }
        for bits, wave in waves.items()
        for source, state in wave.items()
    ]
    table.insert(pa.Table.from_pylist(rows, schema=table.spec.columns))
    compared = lake.get_table(BENCHMARK_COMPARED.name)
    batches = (
        batch.append_column(
            "compared_id",
            pa.array([compute_digest(*pair) for pair in zip(*batch.to_pydict().values(), strict=True)], pa.string()),
        )
        .append_column("run_id", pa.repeat(pa.scalar(run_id), len(batch)))
        .select(BENCHMARK_COMPARED.columns.names)
        for batch in search.iter_compared(wave_ids)
    )
    compared.append_fragments([compared.write_fragments(batches)])


def _remove_outdated(lake: Lake, search: BenchmarkSearch) -> None:
    """Remove matches with items as they were before, and first that contents have met these: they may come back."""
    states = {benchmark.source: benchmark.items_state for benchmark in search.benchmarks}
    outdated = f"{sql.is_in('source', list(states))} AND NOT {sql.is_in('items_state', list(states.values()))}"
    for spec in (BENCHMARK_WAVES, BENCHMARK_MATCHES):
        table = lake.get_table(spec.name)
        if table.exists() and table.count(outdated):
            table.delete(outdated)
