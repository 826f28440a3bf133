"""What a page shows of pairs: texts, images, verdicts, provenance, as values for templates. Text stays text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER
from mvl_assets.lake_queries.pair_index.index import PairIndex
from mvl_assets.stages import JUDGED, REWRITTEN
from mvl_assets.view.boxes import TextBox, extract_boxes
from mvl_assets.view.rendered_text import render_text
from mvl_assets.view.word_diff import Part, mark_differences

MAX_CARD_CHARS = 900
MAX_TEXT_CHARS = 40_000
MAX_IMAGES = 64

_SAMPLE_COLUMNS = (
    "conversations",
    "image_ids",
    "video",
    "license",
    "native_id",
    "file",
    "position",
    "upstream_dataset",
)
_REWRITE_COLUMNS = ("conversations", "request_key", "prompt", "prompt_hash", "model", "model_revision", "ordinal")
_VERDICT_COLUMNS = ("verdicts", "panel", "model", "model_revision", "keep_rule", "prompt_hash", "run_id")


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of a conversation: who says it, and its text in parts that differ or do not."""

    role: str
    parts: list[Part]

    def render(self) -> Markup:
        """Return the text with its Markdown and LaTeX drawn, without marks of differences."""
        return render_text("".join(text for text, _ in self.parts))


@dataclass(slots=True)
class PairCard:
    """One pair as a list of pairs shows it, and the base of its own page.

    Attributes:
        row: Its row in the index.
        original: The turns of the sample; empty if it is gone.
        rewritten: The turns of the rewrite; empty if it has been replaced.
        image_ids: Its images, or the frames of its video.
        seconds: Of each frame of a video.
        label: The newest label; empty without one.
    """

    row: dict[str, Any]
    original: list[Turn]
    rewritten: list[Turn]
    image_ids: list[str]
    seconds: list[float] = field(default_factory=list)
    label: str = ""

    @property
    def state(self) -> str:
        """`kept`, `dropped` or `unjudged`."""
        return {True: "kept", False: "dropped"}.get(self.row["keep"], "unjudged")

    @property
    def outcome(self) -> str:
        """What became of it: `kept`, the reason of dropping, or that no judge has seen it."""
        return {"kept": "kept", "unjudged": "not judged"}.get(self.state) or self.row["drop_reason"] or "dropped"


@dataclass(slots=True)
class PairPage:
    """Everything that the page of a pair shows at once.

    Attributes:
        card: The pair.
        judges: Each judge with its verdicts.
        facts: Provenance, as names and values.
        boxes: Boxes that its texts name.
        judged: Columns of its verdict.
    """

    card: PairCard
    judges: list[dict[str, Any]]
    facts: list[tuple[str, str]]
    boxes: list[TextBox]
    judged: dict[str, Any]


def read_cards(
    index: PairIndex, ordinals: Sequence[int], labels: Mapping[str, str], max_chars: int = MAX_CARD_CHARS
) -> list[PairCard]:
    """Return a few pairs with their texts cut, in the given order.

    Args:
        index: The index.
        ordinals: The pairs.
        labels: The newest label by rewrite id.
        max_chars: Characters of a turn.
    """
    rows = index.read_rows(ordinals)
    samples = index.take("samples", [row["sample_address"] for row in rows], _SAMPLE_COLUMNS)
    rewrites: dict[int, dict[str, Any] | None] = {}
    for category in {row["category"] for row in rows}:
        own_rows = [row for row in rows if row["category"] == category]
        addresses = [row["rewrite_address"] for row in own_rows]
        taken = index.take(REWRITTEN.get_table_name(category), addresses, _REWRITE_COLUMNS)
        rewrites |= {row["ordinal"]: rewrite for row, rewrite in zip(own_rows, taken, strict=True)}
    return [
        _build_card(row, sample or {}, rewrites[row["ordinal"]] or {}, labels.get(row["rewrite_id"], ""), max_chars)
        for row, sample in zip(rows, samples, strict=True)
    ]


def read_page(index: PairIndex, ordinal: int, labels: Mapping[str, str]) -> PairPage:
    """Return one pair as its own page shows it."""
    (row,) = index.read_rows([ordinal])
    (sample,) = index.take("samples", [row["sample_address"]], _SAMPLE_COLUMNS)
    category = row["category"]
    (rewrite,) = index.take(REWRITTEN.get_table_name(category), [row["rewrite_address"]], _REWRITE_COLUMNS)
    (judged,) = index.take(JUDGED.get_table_name(category), [row["judged_address"]], _VERDICT_COLUMNS)
    judged = judged or dict.fromkeys(_VERDICT_COLUMNS)
    sample, rewrite = sample or {}, rewrite or {}
    card = _build_card(row, sample, rewrite, labels.get(row["rewrite_id"], ""), MAX_TEXT_CHARS)
    texts = [turn.get("value") or "" for turns in (sample, rewrite) for turn in turns.get("conversations") or ()]
    return PairPage(card, _list_judges(judged), _list_facts(row, sample, rewrite), extract_boxes(texts), judged)


def _build_card(
    row: dict[str, Any], sample: Mapping[str, Any], rewrite: Mapping[str, Any], label: str, max_chars: int
) -> PairCard:
    original, rewritten = _compare_turns(
        sample.get("conversations") or (), rewrite.get("conversations") or (), max_chars
    )
    seconds = (sample.get("video") or {}).get("seconds") or []
    image_ids = list(sample.get("image_ids") or ())[:MAX_IMAGES]
    return PairCard(row, original, rewritten, image_ids, list(seconds), label)


def _compare_turns(
    original: Sequence[Mapping[str, str]], rewritten: Sequence[Mapping[str, str]], max_chars: int
) -> tuple[list[Turn], list[Turn]]:
    """Compare turn by turn; turns without a counterpart, or with one of another role, are not marked."""
    turns: tuple[list[Turn], list[Turn]] = [], []
    for number in range(max(len(original), len(rewritten))):
        sides = [side[number] if number < len(side) else None for side in (original, rewritten)]
        texts = [None if turn is None else _cut(_strip_markers(turn["value"] or ""), max_chars) for turn in sides]
        first, second = sides
        if first is not None and second is not None and first["from"] == second["from"]:
            marked: Sequence[list[Part]] = mark_differences(texts[0] or "", texts[1] or "")
        else:
            marked = [[(text or "", False)] for text in texts]
        for side, turn, parts in zip(turns, sides, marked, strict=True):
            if turn is not None:
                side.append(Turn(turn["from"], parts))
    return turns


def _strip_markers(text: str) -> str:
    """Return the text without the markers before it: the images are beside it."""
    stripped = text
    while stripped.startswith((IMAGE_MARKER, VIDEO_MARKER)):
        stripped = stripped.removeprefix(IMAGE_MARKER).removeprefix(VIDEO_MARKER).lstrip()
    return stripped


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[:max_chars]}… ({len(text) - max_chars:,} more characters)"


def _list_judges(judged: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the verdicts of the judge, and those of the others of its panel."""
    judges = [judged, *(judged["panel"] or [])]
    return [{"model": judge["model"] or "", "verdicts": judge["verdicts"] or []} for judge in judges]


def _list_facts(row: Mapping[str, Any], sample: Mapping[str, Any], rewrite: Mapping[str, Any]) -> list[tuple[str, str]]:
    position = sample.get("position")
    location = f"{sample.get('file') or 'unknown'}" + ("" if position is None else f", row {position}")
    facts = {
        "source": row["source"],
        "file": location,
        "id in the source": sample.get("native_id"),
        "data set": sample.get("upstream_dataset"),
        "licence": row["license"] or sample.get("license") or "unknown",
        "split": row["split"],
        "prompt": rewrite.get("prompt") and f"{rewrite['prompt']} ({(rewrite['prompt_hash'] or '')[:12]})",
        "task type": row["task_type"],
        "rewritten by": rewrite.get("model") and f"{rewrite['model']}@{rewrite['model_revision']}",
        "used in": row["mixtures"],
        "scores": row["content_score"] and f"content {row['content_score']}, relevance {row['relevance_score']}",
        **{name: _format_scores(value) for name, value in row.items() if isinstance(value, dict)},
        "sharpness": row["sharpness"] and f"{row['sharpness']:,.0f}",
        "language": row["language"],
        "duplicate": row["duplicate"],
        "in a benchmark": row["contaminated"],
        "rewrite": row["rewrite_id"],
        "verdict": row["judged_id"] if row["judged_address"] is not None else None,
        "sample": row["sample_id"],
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None and value != ""]


def _format_scores(scores: Mapping[str, Any]) -> str:
    """Return scores that others gave a sample in words."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in scores.items()
        if value is not None
    )
