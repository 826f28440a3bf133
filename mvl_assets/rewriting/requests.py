"""Which samples of a source are rewritten, and the requests they make. Nothing is sent from here."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.prompts import Prompt
from mvl_assets.errors import SourceError
from mvl_assets.inference.request import ModelRef
from mvl_assets.lake import sql
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.build import Ask, asks_of

BATCH = 512
_COLUMNS = ["sample_id", "version_id", "conversations", "image_ids", "video"]


def family_of(source: SourceSpec) -> str:
    """The prompt family. Raises `SourceError` for a source nobody rewrites."""
    if source.group != "B" or source.family is None:
        raise SourceError(source.slug, f"group {source.group} is not rewritten", hint="only group B is")
    return source.family


def asks_for(
    lake: Lake, source: SourceSpec, prompt: Prompt, model: ModelRef, limit: int | None, first: int = 0
) -> Iterator[tuple[str, list[Ask]]]:
    """(sample id, its requests), sample by sample; no requests for one that holds no answered question.

    `limit` takes the samples whose id, a hash, is smallest: a larger limit contains the smaller. The samples before
    the `first` come last.
    """
    for versions in _batches(lake, source, limit, first):
        found = lake.index("samples").rows(versions, _COLUMNS)
        for version in versions:
            sample = found[version]
            yield sample["sample_id"], asks_of(sample, prompt, model)


def count_samples(lake: Lake, source: SourceSpec, limit: int | None) -> int:
    """How many samples `asks_for` goes through."""
    count = lake.table(f"category/{source.category}").count(sql.equals("source", source.slug))
    return count if limit is None else min(count, limit)


def about_requests(lake: Lake, source: SourceSpec, prompt: Prompt, limit: int | None) -> int:
    """About how many requests `asks_for` makes, without building them: samples that ask the same count twice."""
    table = lake.table(f"category/{source.category}")
    samples = pairs = 0
    for row in table.rows(["n_turns"], sql.equals("source", source.slug), 8192):
        samples += 1
        pairs += max(1, (row["n_turns"] or 0) // 2) if prompt.per == "pair" else 1
    return pairs if limit is None or limit >= samples else round(pairs * limit / samples)


def _batches(lake: Lake, source: SourceSpec, limit: int | None, first: int) -> Iterator[list[str]]:
    table, of_source = lake.table(f"category/{source.category}"), sql.equals("source", source.slug)
    columns = ["sample_id", "version_id"]
    if limit is None:
        rows = table.rows(columns, of_source, 8192, first)
    else:
        smallest = heapq.nsmallest(limit, table.rows(columns, of_source, 8192), key=lambda row: row["sample_id"])
        rows = iter(smallest[first:] + smallest[:first])
    versions = (row["version_id"] for row in rows)
    while batch := list(islice(versions, BATCH)):
        yield batch
