"""Columns of the index: what pairs can be filtered, counted and sorted by."""

from __future__ import annotations

from collections.abc import Mapping

FACET_COLUMNS: Mapping[str, str] = {
    "category": "category",
    "source": "source",
    "keep": "kept",
    "drop_reason": "reason of dropping",
    "agreement": "judge and reference",
    "judges_agree": "judges agree",
    "failed_criteria": "criteria with a No",
    "family": "prompt family",
    "task_type": "task type",
    "prompt": "prompt",
    "prompt_hash": "prompt hash",
    "model": "rewriting model",
    "judge_model": "judge",
    "keep_rule": "keep rule",
    "blind": "rewritten without images",
    "modality": "modality",
    "license": "licence",
    "split": "split",
    "mixtures": "used in mixtures",
    "duplicate": "duplicate",
    "contaminated": "in a benchmark",
    "language": "language",
    "needs_image": "needs its image",
}
"""Columns with few values, and their headings."""

VERDICT_COLUMNS = ("keep", "drop_reason", "agreement", "judges_agree", "failed_criteria", "needs_image", "mixtures")
"""Those of `FACET_COLUMNS` that say what became of a pair: hidden from people who label blind."""

NUMBER_COLUMNS: Mapping[str, str] = {
    "p_yes": "P(yes)",
    "answer_chars": "characters of the answer",
    "original_chars": "characters of the original",
    "original_answer_chars": "characters of its answer",
    "n_images": "images",
    "content_score": "content score",
    "relevance_score": "relevance score",
    "n_tiles": "tiles",
    "sharpness": "sharpness",
    "type_token_ratio": "different words of the answer",
}
"""Columns with a range that every index has, and their headings. One of a lake with other criteria and scores has more:
`p_yes_<criterion>` and `<name>.<column>` (`PairIndex.number_columns`)."""

ID_COLUMNS = ("judged_id", "rewrite_id", "sample_id", "version_id")
ADDRESS_COLUMNS = ("judged_address", "rewrite_address", "sample_address")
MAX_FACET_VALUES = 200
