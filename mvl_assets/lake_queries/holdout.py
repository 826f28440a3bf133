"""Held-out samples: kept out of every mixture for evaluation, and chosen by hash, so the choice never changes.

All samples of one image are held out together: a question about an image seen in training measures memory.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Any

from mvl_assets.common.batches import iter_batches
from mvl_assets.common.sample_facts import compute_holdout_hash
from mvl_assets.lake.lake import Lake

BATCH_ROWS = 256
MAX_ANSWER_CHARS = 60


def is_held_out(image_group_id: str, fraction: float) -> bool:
    """Return True for about `fraction` of all image groups; a larger fraction includes those of a smaller one."""
    return compute_holdout_hash(image_group_id) < compute_holdout_limit(fraction)


def compute_holdout_limit(fraction: float) -> int:
    """Return the limit below which the `holdout_hash` of about `fraction` of all image groups is."""
    return math.ceil(fraction * (1 << 32))


def read_held_out_samples(lake: Lake, category: str, fraction: float, n_samples: int) -> list[dict[str, Any]]:
    """Return the held-out samples of a category with the smallest hashes: more of them include the same ones.

    Each has version_id, source, category, conversations, image_ids and video.

    Args:
        lake: The lake.
        category: The category.
        fraction: Share of image groups that are held out, from 0 to 1.
        n_samples: Most samples.
    """
    table, condition = lake.get_table(f"category/{category}"), f"holdout_hash < {compute_holdout_limit(fraction)}"
    columns = ["holdout_hash", "version_id", "source"]
    keys = (tuple(row[name] for name in columns) for row in table.iter_rows(columns, condition, BATCH_ROWS))
    rows: list[dict[str, Any]] = []
    for _, version_id, source in heapq.nsmallest(n_samples, keys):
        sample_columns = ["version_id", "source", "conversations", "image_ids", "video"]
        stored = lake.get_index("samples", source).read_rows([version_id], sample_columns)
        rows += [{**row, "category": category} for row in stored.values()]
    return rows


def iter_held_out_rows(lake: Lake, category: str, sources: list[str], fraction: float) -> Iterator[dict[str, Any]]:
    """Yield held-out samples of one category with one question and a short reference answer.

    The answer has at most `MAX_ANSWER_CHARS` characters. Each row has sample_id, version_id, source, category,
    conversations, image_ids and video.

    Args:
        lake: The lake.
        category: The category.
        sources: Sources of the category to read, in this order.
        fraction: Share of image groups that are held out, from 0 to 1.
    """
    table, condition = lake.get_table(f"category/{category}"), f"holdout_hash < {compute_holdout_limit(fraction)}"
    columns = ["sample_id", "version_id", "source", "conversations", "image_ids", "video"]
    for source in sources:
        for held_out in iter_batches(table.iter_rows(["version_id"], condition, partition_key=source), BATCH_ROWS):
            version_ids = sorted(row["version_id"] for row in held_out)
            for row in lake.get_index("samples", source).read_rows(version_ids, columns).values():
                turns = row["conversations"]
                if [t["from"] for t in turns] == ["human", "gpt"] and 0 < len(turns[1]["value"]) <= MAX_ANSWER_CHARS:
                    yield {**row, "category": category}
