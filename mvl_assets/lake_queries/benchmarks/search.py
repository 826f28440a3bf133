"""Contents of training rows that may touch an item of a benchmark, found by images and by what was matched before.

A content is what samples with one fingerprint say. Which contents were matched with which benchmark is stored: a wave
is a set of benchmarks, each in the state that its items had, and a row says that a content met a wave. So a new content
meets all benchmarks, a new or changed benchmark meets all contents, and nothing meets anything twice. The items are
few and kept in the database; contents stream past them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.id_array import format_ids
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import open_duckdb, stream_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.benchmarks.matched_basis import find_scope
from mvl_assets.lake_queries.current_samples import stream_current_samples
from mvl_assets.lake_queries.pdq_bands import (
    HASH_WORDS,
    MAX_BUCKET_IMAGES,
    MAX_NEIGHBOURS,
    MAX_PDQ_DISTANCE,
    MIN_PDQ_QUALITY,
    N_BANDS,
    PDQ_DISTANCE,
    format_band_key,
)

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 2048

MAX_IMAGE_ITEMS = 64
"""Items that show one image, of which the first alone are compared."""

MAX_BENCHMARKS = 120
"""Benchmarks of one run: each is a bit of a number."""


@dataclass(frozen=True, slots=True)
class MatchedBenchmark:
    """A benchmark whose items are in the lake.

    Attributes:
        source: Slug of the source that its items are.
        items_state: Digest of them and of how they are scored.
        n_items: Their number.
    """

    source: str
    items_state: str
    n_items: int


class BenchmarkSearch:
    """Search for candidates among the contents that have not met all benchmarks: the table `pending`."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        lake: Lake,
        sources: Sequence[str],
        benchmarks: Mapping[str, Sequence[object]],
    ) -> None:
        self.con = connection
        self.lake = lake
        self.con.execute("CREATE TABLE sources (source VARCHAR, rank INTEGER)")
        self.con.executemany("INSERT INTO sources VALUES (?, ?)", [(slug, rank) for rank, slug in enumerate(sources)])
        self._load_items(benchmarks)
        self.benchmarks = self._load_states(benchmarks)
        if self.benchmarks:
            states = {benchmark.source: benchmark.items_state for benchmark in self.benchmarks}
            self.scope = find_scope(lake, sources, states)
            self._load_pending()

    # -- items -----------------------------------------------------------------------------------------------------

    def _load_items(self, slugs: Collection[str]) -> None:
        columns = ["source", "sample_id", "version_id", "image_ids", "image_properties"]
        condition = sql.is_in("source", sorted(slugs)) if slugs else "false"
        with stream_current_samples(self.con, self.lake, columns, condition):
            self.con.execute(
                """CREATE TABLE items AS
                   SELECT row_number() OVER (ORDER BY source, sample_id)::INTEGER - 1 AS item, source,
                          sample_id::UUID AS item_id, version_id::UUID AS version_id, image_ids::UUID[] AS image_ids,
                          image_properties FROM current_samples"""
            )

    def _load_states(self, benchmarks: Mapping[str, Sequence[object]]) -> list[MatchedBenchmark]:
        """Create `states`: the benchmarks that have items, each with its bit."""
        rows = self.con.execute(
            """SELECT source, count(*), md5(string_agg(version_id::VARCHAR, ' ' ORDER BY version_id))
               FROM items GROUP BY source ORDER BY source"""
        ).fetchall()
        if len(rows) > MAX_BENCHMARKS:
            raise ValueError(f"{len(rows)} benchmarks are more than {MAX_BENCHMARKS}")
        matched = [
            MatchedBenchmark(source, compute_digest("benchmark items", digest, *benchmarks[source]), n_items)
            for source, n_items, digest in rows
        ]
        self.con.execute("CREATE TABLE states (source VARCHAR, items_state VARCHAR, bit HUGEINT)")
        for nth, benchmark in enumerate(matched):
            self.con.execute(
                "INSERT INTO states VALUES (?, ?, 1::HUGEINT << ?)", [benchmark.source, benchmark.items_state, nth]
            )
        return matched

    def iter_items(self) -> Iterator[pa.RecordBatch]:
        """Yield `item` (a number), `source` and `conversations` of all items, by number."""
        condition = sql.is_in("source", sorted(benchmark.source for benchmark in self.benchmarks))
        with stream_current_samples(self.con, self.lake, ["version_id", "conversations"], condition):
            yield from self.con.sql(
                """SELECT i.item, i.source, s.conversations
                   FROM current_samples s JOIN items i ON i.version_id = s.version_id::UUID ORDER BY i.item"""
            ).to_arrow_reader(BATCH_ROWS)

    def read_items(self, numbers: Collection[int]) -> dict[int, dict[str, str]]:
        """Return `item_id`, `version_id` and `source` of items by number; may be called while results are read."""
        with self.con.cursor() as con:
            reader = con.sql(
                "SELECT item, item_id, version_id, source FROM items WHERE list_contains(?, item)",
                params=[sorted(numbers)],
            ).to_arrow_reader(BATCH_ROWS)
            return {row.pop("item"): row for batch in reader for row in format_ids(batch).to_pylist()}

    # -- contents --------------------------------------------------------------------------------------------------

    def _load_pending(self) -> None:
        """Create `pending`: contents with a benchmark that they have not met, and the bits of these."""
        con = self.con
        with stream_table(
            con, "wave_rows", self.lake.get_table("curation/benchmark_waves"), ["wave_id", "source", "items_state"]
        ):
            con.execute(
                """CREATE TABLE waves AS SELECT w.wave_id::UUID AS wave_id, bit_or(s.bit) AS bits
                   FROM wave_rows w JOIN states s USING (source, items_state) GROUP BY ALL"""
            )
        with self._stream_compared():
            con.execute(
                """CREATE TABLE met AS SELECT c.fingerprint::UUID AS fingerprint, bit_or(w.bits) AS bits
                   FROM compared_rows c JOIN waves w ON w.wave_id = c.wave_id::UUID GROUP BY ALL"""
            )
        with self._stream_samples(["source", "version_id", "fingerprint", "image_ids"]):
            con.execute(
                """CREATE TABLE pending AS
                   WITH wanted AS (SELECT bit_or(bit) AS bits FROM states)
                   SELECT c.fingerprint::UUID AS fingerprint, min(c.version_id::UUID) AS version_id,
                          arg_min(r.rank, c.version_id::UUID) AS rank,
                          any_value(c.image_ids::UUID[]) AS image_ids,
                          any_value(xor(w.bits & coalesce(m.bits, 0), w.bits)) AS bits
                   FROM current_samples c JOIN sources r USING (source)
                   LEFT JOIN met m ON m.fingerprint = c.fingerprint::UUID CROSS JOIN wanted w
                   WHERE (w.bits & coalesce(m.bits, 0)) <> w.bits GROUP BY c.fingerprint::UUID"""
            )
        con.execute("DROP TABLE met")

    @contextmanager
    def _stream_compared(self) -> Iterator[None]:
        """Offer `fingerprint` and `wave_id` of contents that have met waves as `compared_rows`, once."""
        con, table, columns = self.con, self.lake.get_table("curation/benchmark_compared"), ["fingerprint", "wave_id"]
        if self.scope.added_fragments is None:
            with stream_table(con, "compared_rows", table, columns):
                yield
            return
        with self._stream_samples(["fingerprint"]):
            added = con.sql("SELECT DISTINCT fingerprint FROM current_samples").to_arrow_table()
        rows = table.find_rows("fingerprint", added.column(0).combine_chunks(), columns)
        con.register("compared_rows", rows)
        try:
            yield
        finally:
            con.unregister("compared_rows")

    @contextmanager
    def _stream_samples(self, columns: Sequence[str], condition: str | None = None) -> Iterator[None]:
        """Offer the current samples of the scope as `current_samples`, once; those that are pending are among them."""
        with stream_current_samples(self.con, self.lake, columns, condition, self.scope.added_fragments):
            yield

    def count_pending(self) -> int:
        """Return the number of contents that have not met all benchmarks."""
        ((n_pending,),) = self.con.execute("SELECT count(*) FROM pending").fetchall()
        return n_pending

    def load_match_ids(self) -> set[str]:
        """Return the ids of stored matches of pending contents: a run that was killed has left them."""
        columns = ["match_id", "fingerprint", "items_state"]
        with stream_table(self.con, "match_rows", self.lake.get_table("curation/benchmark_matches"), columns):
            rows = self.con.execute(
                """SELECT m.match_id FROM match_rows m JOIN pending p ON p.fingerprint = m.fingerprint::UUID
                   JOIN states s USING (items_state)"""
            ).fetchall()
        return {match_id for (match_id,) in rows}

    def iter_pending_texts(self) -> Iterator[pa.Table]:
        """Yield `fingerprint`, `conversations` and `bits` (text, see `list_missing`) of pending contents."""
        with self._stream_samples(["version_id", "conversations"], self._format_sources()):
            reader = self.con.sql(
                """SELECT p.fingerprint, s.conversations, p.bits::VARCHAR AS bits
                   FROM current_samples s JOIN pending p ON p.version_id = s.version_id::UUID"""
            ).to_arrow_reader(BATCH_ROWS)
            yield from map(format_ids, reader)

    def list_missing(self) -> dict[str, list[str]]:
        """Return the benchmarks that contents have not met, by the number of their bits as text."""
        rows = self.con.execute(
            """SELECT k.bits::VARCHAR, list(s.source ORDER BY s.source)
               FROM (SELECT DISTINCT bits FROM pending) k JOIN states s ON (s.bit & k.bits) <> 0 GROUP BY ALL"""
        ).fetchall()
        return dict(rows)

    def _format_sources(self) -> str:
        query = "SELECT DISTINCT s.source FROM pending p JOIN sources s USING (rank)"
        names = sorted(source for (source,) in self.con.execute(query).fetchall())
        return sql.is_in("source", names) if names else "false"

    def iter_compared(self, wave_ids: Mapping[str, str]) -> Iterator[pa.Table]:
        """Yield `fingerprint` and `wave_id` of pending contents; the wave is that of their bits as text."""
        self.con.register("wave_ids", pa.table({"bits": list(wave_ids), "wave_id": list(wave_ids.values())}))
        reader = self.con.sql(
            """SELECT p.fingerprint, w.wave_id FROM pending p JOIN wave_ids w ON w.bits = p.bits::VARCHAR"""
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)

    # -- images ----------------------------------------------------------------------------------------------------

    def iter_image_pairs(self) -> Iterator[pa.Table]:
        """Yield `image_id`, `item_image_id` and `pdq_distance` of images that may be copies and were never compared."""
        con = self.con
        con.execute(
            f"""CREATE TABLE item_images AS
                SELECT row_number() OVER (ORDER BY image_id)::INTEGER AS image, * FROM (
                  SELECT u.image_id, any_value(u.p.pdq) AS pdq, any_value(u.p.trimmed_pdq) AS trimmed_pdq,
                         any_value(u.p.pdq_quality) >= {MIN_PDQ_QUALITY} AS is_sharp, bit_or(s.bit) AS bits
                  FROM (SELECT source, unnest(image_ids) AS image_id, unnest(image_properties) AS p FROM items) u
                  JOIN states s USING (source) GROUP BY u.image_id)"""  # noqa: S608 - a number of ours
        )
        columns = ["version_id", "image_ids", "image_properties"]
        with self._stream_samples(columns, self._format_sources()):
            con.execute(
                f"""CREATE TABLE pending_images AS
                    SELECT image_id, any_value(q.pdq) AS pdq, any_value(q.trimmed_pdq) AS trimmed_pdq,
                           any_value(q.pdq_quality) >= {MIN_PDQ_QUALITY} AS is_sharp, bit_or(bits) AS bits
                    FROM (SELECT unnest(s.image_ids)::UUID AS image_id, unnest(s.image_properties) AS q, p.bits
                          FROM current_samples s JOIN pending p ON p.version_id = s.version_id::UUID
                          WHERE len(p.image_ids) > 0) GROUP BY image_id"""  # noqa: S608 - a number of ours
            )
        for name, images in (("hashed_items", "item_images"), ("hashed", "pending_images")):
            con.execute(
                f"""CREATE TABLE {name} AS SELECT * EXCLUDE (hash), {HASH_WORDS} FROM (
                      SELECT * EXCLUDE (pdq, trimmed_pdq, is_sharp), unnest([pdq, trimmed_pdq]) AS hash
                      FROM {images} WHERE is_sharp) WHERE hash IS NOT NULL"""  # noqa: S608 - names of ours
            )
        con.execute("CREATE TABLE image_candidates (image_id UUID, image INTEGER, distance SMALLINT)")
        for nth in range(N_BANDS if con.execute("SELECT 1 FROM hashed LIMIT 1").fetchall() else 0):
            self._join_image_band(nth)
        con.execute("DROP TABLE hashed")
        self._load_stored_pairs()
        reader = con.sql(
            f"""SELECT c.image_id, i.image_id AS item_image_id, c.distance::INTEGER AS pdq_distance
                FROM (SELECT image_id, image, min(distance) AS distance
                      FROM image_candidates GROUP BY image_id, image
                      QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY min(distance), image)
                                <= {MAX_NEIGHBOURS}) c
                JOIN item_images i USING (image)
                WHERE (c.image_id, i.image_id) NOT IN (SELECT (image_id, item_image_id) FROM stored_pairs)
                ORDER BY c.image, c.image_id"""  # noqa: S608 - a number of ours
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)

    def _join_image_band(self, nth: int) -> None:
        key = format_band_key(nth)
        self.con.execute(
            f"""INSERT INTO image_candidates
                WITH keyed AS (SELECT *, {key} AS key FROM hashed_items),
                     firsts AS (SELECT * FROM keyed WHERE key IN (SELECT {key} FROM hashed)
                                QUALIFY dense_rank() OVER (PARTITION BY key ORDER BY image) <= {MAX_BUCKET_IMAGES})
                SELECT a.image_id, b.image, min({PDQ_DISTANCE}) AS distance
                FROM (SELECT *, {key} AS key FROM hashed) a JOIN firsts b ON a.key = b.key
                WHERE (a.bits & b.bits) <> 0 AND a.image_id <> b.image_id AND {PDQ_DISTANCE} <= {MAX_PDQ_DISTANCE}
                GROUP BY ALL"""  # noqa: S608 - names and numbers of ours
        )

    def _load_stored_pairs(self) -> None:
        columns = ["image_id", "item_image_id", "correlation", "block_difference", "lost_edges"]
        with stream_table(self.con, "pair_rows", self.lake.get_table("curation/benchmark_image_pairs"), columns):
            self.con.execute(
                """CREATE OR REPLACE TABLE stored_pairs AS
                   SELECT r.* REPLACE (r.image_id::UUID AS image_id, r.item_image_id::UUID AS item_image_id)
                   FROM pair_rows r JOIN pending_images p ON p.image_id = r.image_id::UUID"""
            )

    def iter_item_pairs(self) -> Iterator[pa.Table]:
        """Yield pairs of a pending content and an item that show an image and a copy of it, once pairs are stored.

        Columns: `fingerprint`, `version_id`, `item_id`, `item_version_id`, `source` (of the item), `image_id`,
        `item_image_id`, `is_first` (of the items with this image), and the scores of the images, null for the same one.
        """
        self._load_stored_pairs()
        self.con.execute(
            """CREATE TABLE links AS
               SELECT image_id, item_image_id, correlation, block_difference, lost_edges FROM stored_pairs
               UNION ALL SELECT image_id, image_id, NULL, NULL, NULL FROM item_images
                         WHERE image_id IN (SELECT image_id FROM pending_images)"""
        )
        reader = self.con.sql(
            f"""WITH shown AS (SELECT i.item, i.item_id, i.version_id, i.source, s.bit, unnest(i.image_ids) AS image_id
                               FROM items i JOIN states s USING (source)),
                     firsts AS (SELECT DISTINCT * FROM shown
                                QUALIFY dense_rank() OVER (PARTITION BY image_id, source ORDER BY item)
                                          <= {MAX_IMAGE_ITEMS}),
                     pairs AS (
                       SELECT p.fingerprint, p.version_id, f.item_id, f.version_id AS item_version_id, f.source,
                              l.image_id, l.item_image_id, l.correlation, l.block_difference, l.lost_edges, f.item
                       FROM (SELECT fingerprint, version_id, bits, unnest(image_ids) AS image_id FROM pending) p
                       JOIN links l USING (image_id) JOIN firsts f ON f.image_id = l.item_image_id
                       WHERE (p.bits & f.bit) <> 0
                       QUALIFY row_number() OVER (PARTITION BY p.fingerprint, f.item_id
                                 ORDER BY l.correlation DESC NULLS FIRST, l.image_id, l.item_image_id) = 1)
                SELECT * EXCLUDE (item), row_number() OVER (
                         PARTITION BY fingerprint, item_image_id, source ORDER BY item) = 1 AS is_first
                FROM pairs ORDER BY version_id, item"""  # noqa: S608 - a number of ours
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)


@contextmanager
def open_benchmark_search(
    lake: Lake, sources: Sequence[str], benchmarks: Mapping[str, Sequence[object]]
) -> Iterator[BenchmarkSearch]:
    """Open a search among the current samples of `sources`.

    Args:
        lake: The lake.
        sources: The training sources.
        benchmarks: Sources of items, each with what its scores depend on besides the items.
    """
    with open_duckdb() as con:
        yield BenchmarkSearch(con, lake, sources, benchmarks)
