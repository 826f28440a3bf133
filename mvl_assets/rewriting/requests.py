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
from mvl_assets.rewriting.build import RewriteRequest, build_requests

SAMPLE_BATCH_SIZE = 512
_SAMPLE_COLUMNS = ["sample_id", "version_id", "conversations", "image_ids", "video"]


def resolve_prompt_family(source: SourceSpec) -> str:
    """The prompt family. Raises `SourceError` for a source nobody rewrites."""
    if source.group != "B" or source.family is None:
        raise SourceError(source.slug, f"group {source.group} is not rewritten", hint="only group B is")
    return source.family


def iter_requests(
    lake: Lake, source: SourceSpec, prompt: Prompt, model: ModelRef, limit: int | None, rotate_from: int = 0
) -> Iterator[tuple[str, list[RewriteRequest]]]:
    """(sample id, its requests), sample by sample; no requests for one that holds no answered question.

    `limit` takes the samples whose id, a hash, is smallest: a larger limit contains the smaller. The samples before
    the `rotate_from` come last.
    """
    for version_ids in _iter_version_id_batches(lake, source, limit, rotate_from):
        samples_by_version = lake.get_index("samples").read_rows(version_ids, _SAMPLE_COLUMNS)
        for version_id in version_ids:
            sample = samples_by_version[version_id]
            yield sample["sample_id"], build_requests(sample, prompt, model)


def count_samples(lake: Lake, source: SourceSpec, limit: int | None) -> int:
    """How many samples `iter_requests` goes through."""
    count = lake.get_table(f"category/{source.category}").count(sql.equals("source", source.slug))
    return count if limit is None else min(count, limit)


def estimate_request_count(lake: Lake, source: SourceSpec, prompt: Prompt, limit: int | None) -> int:
    """About how many requests `iter_requests` makes, without building them: samples that ask the same count twice."""
    table = lake.get_table(f"category/{source.category}")
    n_samples = n_requests = 0
    for row in table.iter_rows(["n_turns"], sql.equals("source", source.slug), 8192):
        n_samples += 1
        n_requests += max(1, (row["n_turns"] or 0) // 2) if prompt.unit == "pair" else 1
    return n_requests if limit is None or limit >= n_samples else round(n_requests * limit / n_samples)


def _iter_version_id_batches(
    lake: Lake, source: SourceSpec, limit: int | None, rotate_from: int
) -> Iterator[list[str]]:
    table, source_filter = lake.get_table(f"category/{source.category}"), sql.equals("source", source.slug)
    columns = ["sample_id", "version_id"]
    if limit is None:
        rows = table.iter_rows(columns, source_filter, 8192, rotate_from)
    else:
        smallest = heapq.nsmallest(
            limit, table.iter_rows(columns, source_filter, 8192), key=lambda row: row["sample_id"]
        )
        rows = iter(smallest[rotate_from:] + smallest[:rotate_from])
    version_ids = (row["version_id"] for row in rows)
    while batch := list(islice(version_ids, SAMPLE_BATCH_SIZE)):
        yield batch
