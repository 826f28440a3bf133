"""Finds the rows and images that a purge of a source, or of some of its samples, concerns."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

from mvl_assets.common.benchmark_slugs import BENCHMARK_PREFIX
from mvl_assets.lake import sql
from mvl_assets.lake.id_set import IdSet
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.removal.image_refs import iter_referenced_image_ids
from mvl_assets.stages import SCORES

EVALUATION_FAMILY = "evaluation"
PACKED_ROWS_FAMILY = "packed_rows"
BATCH_SIZE = 8192
_FAMILIES = ("scored", "judged", "rewritten", "category")
_VERSION_COLUMNS = ["sample_id", "native_id", "revision", "content_hash", "conversations", "image_ids", "video"]


class PurgeScope:
    """SQL conditions and ids of one source, or of some of its samples and their exact copies. Reads the lake only.

    Everything is computed on first use and then kept: a scope describes the lake as it was then.

    Attributes:
        source: Slug of the source.
        requested_ids: Ids of the named samples; empty for a whole source.
        is_whole_source: Whether the whole source is meant.
    """

    def __init__(self, lake: Lake, source: str, sample_ids: Collection[str] | None = None) -> None:
        self.lake = lake
        self.source = source
        self.requested_ids = frozenset(sample_ids or ())
        self.is_whole_source = sample_ids is None

    # -- samples ---------------------------------------------------------------------------------------------------

    @cached_property
    def sample_ids(self) -> frozenset[str]:
        """The named samples and their exact copies in the same source: the same data under another name."""
        same_content_rows = self.lake.get_table("samples").iter_rows(["sample_id"], self._same_content_filter)
        hashes = self._content_hashes
        copies = self.iter_versions({row["sample_id"] for row in same_content_rows})
        return self.requested_ids | {row["sample_id"] for row in copies if row["content_hash"] in hashes}

    def iter_versions(self, sample_ids: Collection[str]) -> Iterator[dict]:
        """Yield the versions of these samples that hold their own content.

        A sample without a native id is identified by its position, where other rows may have been before: of such a
        sample only the newest version counts. Versions that only record a withdrawal are left out.
        """
        condition = f"{sql.is_in('sample_id', sample_ids)} AND NOT withdrawn"
        table = self.lake.get_table("samples")
        newest_revisions: dict[str, int] = {}
        for row in table.iter_rows(["sample_id", "revision"], condition):
            newest_revisions[row["sample_id"]] = max(row["revision"], newest_revisions.get(row["sample_id"], 0))
        for row in table.iter_rows(_VERSION_COLUMNS, condition):
            if row["native_id"] is not None or row["revision"] == newest_revisions[row["sample_id"]]:
                yield row

    @cached_property
    def _content_hashes(self) -> frozenset[str]:
        return frozenset(row["content_hash"] for row in self.iter_versions(self.requested_ids))

    @cached_property
    def _same_content_filter(self) -> str:
        """Matches versions of the source's samples with the same content as the named ones."""
        return f"{sql.equals('source', self.source)} AND {sql.is_in('content_hash', self._content_hashes)}"

    @cached_property
    def _earlier_positions(self) -> tuple[set[str], set[str]]:
        """Versions of other samples with the same content, and the rewrites of these versions.

        Rows without a native id are identified by position, so when rows shift, old content survives in an earlier
        revision of the sample that is now at that position.
        """
        other_samples_filter = f"{self._same_content_filter} AND NOT ({self.sample_filter})"
        samples = self.lake.get_table("samples")
        version_ids = {row["version_id"] for row in samples.iter_rows(["version_id"], other_samples_filter)}
        version_filter = sql.is_in("version_id", version_ids)
        rewrite_ids = {
            row["rewrite_id"]
            for name in (self.lake.list_tables("rewritten") if version_ids else ())
            for row in self.lake.get_table(name).iter_rows(["rewrite_id"], version_filter)
        }
        return version_ids, rewrite_ids

    # -- rows ------------------------------------------------------------------------------------------------------

    @cached_property
    def sample_filter(self) -> str:
        """Matches rows about the samples, in tables with the columns `source` and `sample_id`."""
        return sql.equals("source", self.source) if self.is_whole_source else sql.is_in("sample_id", self.sample_ids)

    def build_filter(self, family: str) -> str:
        """Return the condition for the rows of a family of tables: `samples`, `category`, `rewritten`, `judged`..."""
        if self.is_whole_source:
            return self.sample_filter
        if family == "samples":
            return f"({self.sample_filter}) OR ({self._same_content_filter})"
        version_ids, rewrite_ids = self._earlier_positions
        column, ids = ("rewrite_id", rewrite_ids) if family == "judged" else ("version_id", version_ids)
        return f"({self.sample_filter}) OR {sql.is_in(column, ids)}"

    @cached_property
    def delete_filters(self) -> dict[str, str]:
        """The condition for the rows to delete, by table."""
        list_tables = self.lake.list_tables
        canonical_filter = (
            sql.equals("canonical_source", self.source)
            if self.is_whole_source
            else sql.is_in("canonical_sample_id", self.sample_ids)
        )
        hit_filter = self._build_item_filter("item_source", "benchmark_item")
        is_benchmark = self.source.startswith(BENCHMARK_PREFIX)
        return {
            "rejects": self.sample_filter if self.is_whole_source else sql.is_in("row_key", self._collect_row_keys()),
            "labels": self.sample_filter,
            **dict.fromkeys(list_tables(SCORES.name), self.sample_filter),
            **dict.fromkeys(self.lake.list_tables_with_arms(EVALUATION_FAMILY), self.sample_filter),
            **{name: self.build_filter(f) for f in _FAMILIES for name in list_tables(f)},
            # A copy in another source that was dropped in favour of a purged sample is not a duplicate any more.
            "curation/duplicates": f"{self.sample_filter} OR {canonical_filter}",
            # Pairs of contents and of images hold nothing but digests and scores.
            "curation/compared": self.sample_filter,
            # Nothing hits a purged item any more.
            "curation/contamination": f"{self.sample_filter} OR {hit_filter}",
            # Items may come back, and nothing has met them then; removed first, so that a kill leaves only more work.
            **({"curation/benchmark_waves": sql.equals("source", self.source)} if is_benchmark else {}),
            "curation/benchmark_matches": self._build_item_filter("source", "item_id"),
            "curation/benchmark_items": self._build_item_filter("source", "item_id"),
            # It holds the words of all items, and is built again.
            **({"curation/benchmark_index": "true"} if is_benchmark else {}),
        }

    def _build_item_filter(self, source_column: str, id_column: str) -> str:
        """Return the condition for rows about items of benchmarks that are the samples."""
        if self.is_whole_source:
            return sql.equals(source_column, self.source)
        return sql.is_in(id_column, self.sample_ids)

    def _collect_row_keys(self) -> set[str]:
        """Return the row keys that rejects may have: ids of the samples, and of their rewrites and mixture rows."""
        keys = set(self.sample_ids)
        for family, column in (("rewritten", "rewrite_id"), ("mixture", "row_id")):
            for name in self.lake.list_tables_with_arms(family):
                rows = self.lake.get_table(name).iter_rows([column], self.build_filter(family))
                keys.update(row[column] for row in rows)
        return keys

    @cached_property
    def packed_stages(self) -> list[str]:
        """Training stages, as the path of an arm and its stage too, whose pack plan holds rows of the samples."""
        stages = []
        for name in self.lake.list_tables_with_arms("mixture"):
            stage = name.split("/", 1)[1]
            mixture_batches = self.lake.get_table(name).scan(["row_id"], self.build_filter("mixture"), BATCH_SIZE)
            row_ids = IdSet(batch.column(0).to_pylist() for batch in mixture_batches)
            planned = self.lake.get_table(f"pack_plan/{stage}").scan(["row_id"], None, BATCH_SIZE) if row_ids else ()
            if any(row_ids.contains(batch.column(0).to_pylist()).any() for batch in planned):
                stages.append(stage)
        return stages

    @cached_property
    def packed_tables(self) -> list[str]:
        """Tables of packed rows that hold rows of the samples, or may: those of an earlier plan."""
        tables = []
        for name in self.lake.list_tables_with_arms(PACKED_ROWS_FAMILY):
            stage = name.split("/", 1)[1]
            first_pack = next(self.lake.get_table(name).iter_range(0, 1, ["plan_version"]), None)
            plan_version = self.lake.get_table(f"pack_plan/{stage}").compute_data_version()
            if first_pack is not None and (stage in self.packed_stages or first_pack["plan_version"] != plan_version):
                tables.append(name)
        return tables

    def list_duplicates_elsewhere(self) -> list[tuple[str, str]]:
        """List (source, sample id) of equal samples that stay. Not looked for when a whole source goes."""
        if self.is_whole_source:
            return []
        columns = ["source", "sample_id", "canonical_source", "canonical_sample_id"]
        table = self.lake.get_table("curation/duplicates")
        rows = list(table.iter_rows(columns, self.delete_filters["curation/duplicates"]))
        pairs = {(row["source"], row["sample_id"]) for row in rows}
        pairs |= {(row["canonical_source"], row["canonical_sample_id"]) for row in rows}
        return sorted(pair for pair in pairs if pair[1] not in self.sample_ids)

    # -- images ----------------------------------------------------------------------------------------------------

    @cached_property
    def image_ids(self) -> IdSet:
        """Images of the samples."""
        return IdSet(iter_referenced_image_ids(self.lake, self.source, self.build_filter("samples")))

    @cached_property
    def exclusive_image_ids(self) -> IdSet:
        """Images of the samples that no other sample of the source uses."""
        other_images = iter_referenced_image_ids(self.lake, self.source, f"NOT ({self.build_filter('samples')})")
        return self.image_ids.difference(other_images)
