"""Which samples of a source are rewritten, and the requests they make. Nothing is sent from here."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

from mvl_assets.catalog import SourceSpec
from mvl_assets.errors import SourceError
from mvl_assets.inference.request import ModelRef
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.prompts import Prompt
from mvl_assets.rewriting.build import Ask, asks_of

BATCH = 512
_COLUMNS = ["sample_id", "version_id", "conversations", "image_ids", "video"]


def family_of(source: SourceSpec) -> str:
    """The prompt family. Raises `SourceError` for a source nobody rewrites."""
    if source.group != "B" or source.family is None:
        raise SourceError(source.slug, f"group {source.group} is not rewritten", hint="only group B is")
    return source.family


def asks_for(
    lake: Lake, source: SourceSpec, prompt: Prompt, model: ModelRef, limit: int | None
) -> Iterator[tuple[str, list[Ask]]]:
    """(sample id, its requests), sample by sample; no requests for one that holds no answered question.

    `limit` takes the samples whose id, a hash, is smallest: a larger limit contains the smaller.
    """
    for versions in _batches(lake, source, limit):
        found = lake.index("samples").rows(versions, _COLUMNS)
        for version in versions:
            sample = found[version]
            yield sample["sample_id"], asks_of(sample, prompt, model)


def about_requests(lake: Lake, source: SourceSpec, prompt: Prompt, limit: int | None) -> int:
    """About how many requests `asks_for` makes, without building them: samples that ask the same count twice."""
    table = lake.table(f"category/{source.category}")
    samples = pairs = 0
    for row in table.rows(["n_turns"], sql.equals("source", source.slug), 8192):
        samples += 1
        pairs += max(1, (row["n_turns"] or 0) // 2) if prompt.per == "pair" else 1
    return pairs if limit is None or limit >= samples else round(pairs * limit / samples)


def _batches(lake: Lake, source: SourceSpec, limit: int | None) -> Iterator[list[str]]:
    table = lake.table(f"category/{source.category}")
    rows = table.rows(["sample_id", "version_id"], sql.equals("source", source.slug), 8192)
    if limit is not None:
        rows = iter(heapq.nsmallest(limit, rows, key=lambda row: row["sample_id"]))
    versions = (row["version_id"] for row in rows)
    while batch := list(islice(versions, BATCH)):
        yield batch
