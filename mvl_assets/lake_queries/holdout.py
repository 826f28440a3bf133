"""Which samples no mixture may take, so that evaluation can ask them. Decided by hash, so it never changes.

All samples of one picture are held out together: a question about a picture seen in training measures memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mvl_assets.common.digest import digest_hex
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake

SHORT_ANSWER = 60


def is_held_out(picture_key: str, share: float) -> bool:
    """True for about `share` of all keys; a larger share contains the smaller."""
    return int(digest_hex("holdout", picture_key)[:8], 16) < share * (1 << 32)


def held_out_rows(lake: Lake, category: str, sources: list[str], share: float) -> Iterator[dict[str, Any]]:
    """Held-out samples of one category that have a known short answer: one question, one answer of at most
    `SHORT_ANSWER` characters. Each row has sample_id, version_id, source, category, conversations, image_ids, video.
    """
    for source in sources:
        chosen = [
            row["version_id"]
            for row in lake.table(f"category/{category}").rows(
                ["version_id", "picture_key"], sql.equals("source", source)
            )
            if is_held_out(row["picture_key"], share)
        ]
        columns = ["sample_id", "version_id", "source", "conversations", "image_ids", "video"]
        for start in range(0, len(chosen), 256):
            rows = lake.index("samples").rows(sorted(chosen[start : start + 256]), columns)
            for row in rows.values():
                turns = row["conversations"]
                if [t["from"] for t in turns] == ["human", "gpt"] and 0 < len(turns[1]["value"]) <= SHORT_ANSWER:
                    yield {**row, "category": category}
