"""Contents and images that are worth comparing: found by bands of hashes, each new one with all others.

Two hashes that are close have a band in common, which a join finds. What shares its band with very many others is
compared with the first of them only, so the cost grows with the rows, not with their square. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import stream_table
from mvl_assets.lake_queries.current_samples import stream_current_samples
from mvl_assets.lake_queries.duplicates import SampleComparison
from mvl_assets.lake_queries.pdq_bands import (
    HASH_WORDS,
    MAX_NEIGHBOURS,
    MAX_PDQ_DISTANCE,
    MIN_PDQ_QUALITY,
    N_BANDS,
    PDQ_DISTANCE,
    format_band_key,
)

BATCH_ROWS = 2048

MAX_BUCKET_IMAGES, MAX_BUCKET_TEXTS, MAX_IMAGE_TEXTS = 256, 8, 64
"""What shares a band with more images, or more texts, or an image with more texts, is compared with the first alone."""

MIN_SHARED_NUMBERS = 4
"""Numbers of 16 that the sketches of rows with the same images share at least: rows with half of their words in common
share fewer with a chance of 1 %."""

NewRows = tuple[pa.Array, pa.Array, pa.Array]
"""Of contents that were never compared: fingerprints, conversations, numbers of images."""


class NearSearch:
    """Search for candidates among the contents of a comparison: the table `content_rows`, one row per content."""

    def __init__(self, comparison: SampleComparison) -> None:
        self.con = comparison.con
        self.lake = comparison.lake
        with stream_table(self.con, "compared_before", self.lake.get_table("curation/compared"), ["fingerprint"]):
            self.con.execute(
                "CREATE TABLE compared AS SELECT DISTINCT fingerprint::UUID AS fingerprint FROM compared_before"
            )
        self.con.execute(f"CREATE TABLE sketches (fingerprint UUID, sketch BIGINT[{N_BANDS}])")
        # Contents that were compared come first, so that what shares a band with many meets these.
        self.con.execute(
            """CREATE TABLE content_rows AS
               SELECT row_number() OVER (ORDER BY is_new, fingerprint)::INTEGER AS content, *
               FROM (SELECT r.fingerprint, min(r.sample_id) AS sample_id,
                            arg_min(r.version_id, r.sample_id) AS version_id, arg_min(r.rank, r.sample_id) AS rank,
                            any_value(r.n_images) AS n_images, any_value(r.first_image) AS first_image,
                            any_value(s.fingerprint) IS NULL AS is_new
                     FROM rows r LEFT JOIN compared s USING (fingerprint) GROUP BY r.fingerprint)"""
        )

    def count_new(self) -> int:
        """Return the number of contents that were never compared."""
        ((n_new,),) = self.con.execute("SELECT count(*) FROM content_rows WHERE is_new").fetchall()
        return n_new

    def iter_new_texts(self) -> Iterator[NewRows]:
        """Yield the texts of contents that were never compared, reading only sources that have some."""
        query = "SELECT DISTINCT s.source FROM content_rows c JOIN sources s USING (rank) WHERE c.is_new"
        sources = sorted(source for (source,) in self.con.execute(query).fetchall())
        if not sources:
            return
        condition = sql.is_in("source", sources)
        with stream_current_samples(self.con, self.lake, ["version_id", "conversations"], condition):
            reader = self.con.sql(
                """SELECT n.fingerprint, s.conversations, n.n_images
                   FROM current_samples s JOIN content_rows n ON n.version_id = s.version_id::UUID WHERE n.is_new"""
            ).to_arrow_reader(BATCH_ROWS)
            for batch in reader:
                rows = format_ids(batch).combine_chunks()
                yield tuple(rows.column(name).combine_chunks() for name in ("fingerprint", "conversations", "n_images"))

    def add_sketches(self, fingerprints: pa.Array, sketches: np.ndarray) -> None:
        """Take the sketches of new contents, while texts are still read."""
        cursor = self.con.cursor()
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(sketches.reshape(-1)), N_BANDS)
        cursor.register("added", pa.table({"fingerprint": fingerprints, "sketch": numbers}))
        cursor.execute("INSERT INTO sketches SELECT fingerprint::UUID, sketch FROM added")
        cursor.close()

    def iter_compared(self) -> Iterator[pa.Table]:
        """Yield the rows of `curation/compared` for contents that were new, but for their run."""
        reader = self.con.sql(
            """SELECT c.fingerprint, c.sample_id, s.source, k.sketch::BIGINT[] AS sketch
               FROM content_rows c JOIN sketches k USING (fingerprint) JOIN sources s USING (rank) WHERE c.is_new"""
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)

    # -- images ----------------------------------------------------------------------------------------------------

    def iter_image_pairs(self) -> Iterator[pa.Table]:
        """Yield `image_id`, `other_image_id` and `pdq_distance` of first images that may be copies, one of them new.

        An image is new if only contents show it first that were never compared.
        """
        con = self.con
        with stream_current_samples(con, self.lake, ["image_ids", "image_properties"]):
            con.execute(
                f"""CREATE TABLE first_images AS
                    SELECT image_id, any_value(pdq) AS pdq, any_value(trimmed_pdq) AS trimmed_pdq
                    FROM (SELECT image_ids[1]::UUID AS image_id, image_properties[1].pdq AS pdq,
                                 image_properties[1].trimmed_pdq AS trimmed_pdq
                          FROM current_samples WHERE image_properties[1].pdq_quality >= {MIN_PDQ_QUALITY})
                    GROUP BY image_id"""  # noqa: S608 - a number of ours
            )
        con.execute(
            f"""CREATE TABLE hashed AS SELECT image, image_id, is_new, {HASH_WORDS} FROM (
                  SELECT i.image, i.image_id, i.is_new, unnest([i.pdq, i.trimmed_pdq]) AS hash FROM (
                    SELECT f.*, s.is_new, row_number() OVER (ORDER BY s.is_new, f.image_id)::INTEGER AS image
                    FROM first_images f JOIN (SELECT first_image AS image_id, bool_and(is_new) AS is_new
                                              FROM content_rows WHERE n_images > 0 GROUP BY first_image) s
                      USING (image_id)) i)
                WHERE hash IS NOT NULL"""  # noqa: S608 - names of ours
        )
        con.execute("CREATE TABLE image_candidates (image INTEGER, other INTEGER, distance SMALLINT)")
        ((n_new, n_old),) = con.execute(
            "SELECT count(*) FILTER (is_new), count(*) FILTER (NOT is_new) FROM hashed"
        ).fetchall()
        for nth in range(N_BANDS if n_new and n_new + n_old > 1 else 0):
            self._join_image_band(nth, has_old_images=n_old > 0)
        self._load_stored("curation/image_pairs", "image_id")
        reader = con.sql(
            f"""WITH pairs AS (SELECT image, other, min(distance) AS distance FROM image_candidates GROUP BY ALL),
                     closest AS (SELECT * FROM pairs
                                 QUALIFY row_number() OVER (PARTITION BY image ORDER BY distance, other)
                                           <= {MAX_NEIGHBOURS}
                                      OR row_number() OVER (PARTITION BY other ORDER BY distance, image)
                                           <= {MAX_NEIGHBOURS}),
                     ids AS (SELECT DISTINCT image, image_id FROM hashed)
                SELECT a.image_id, b.image_id AS other_image_id, c.distance::INTEGER AS pdq_distance
                FROM closest c JOIN ids a USING (image) JOIN ids b ON b.image = c.other
                WHERE (a.image_id, b.image_id) NOT IN (SELECT (id, other_id) FROM stored)
                ORDER BY c.other, c.image"""  # noqa: S608 - numbers of ours
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)

    def _load_stored(self, table_name: str, column: str) -> None:
        """Create `stored`, the pairs that are stored, of this run if an earlier one was killed in it."""
        columns = [column, f"other_{column}"]
        with stream_table(self.con, "stored_rows", self.lake.get_table(table_name), columns):
            self.con.execute(
                f"""CREATE OR REPLACE TABLE stored AS
                    SELECT {column}::UUID AS id, other_{column}::UUID AS other_id FROM stored_rows"""  # noqa: S608
            )

    def _join_image_band(self, nth: int, *, has_old_images: bool) -> None:
        """Add the pairs that share one band: a new image with any other, and an old one with a new one."""
        key = format_band_key(nth)
        sides = [(True, "true"), (False, "is_new")] if has_old_images else [(True, "true")]
        for is_new, others in sides:
            self.con.execute(
                f"""INSERT INTO image_candidates
                    WITH keyed AS (SELECT *, {key} AS key FROM hashed
                                   WHERE {key} IN (SELECT {key} FROM hashed WHERE is_new)),
                         buckets AS (SELECT key, min(image, {MAX_BUCKET_IMAGES}) AS images FROM keyed WHERE {others}
                                     GROUP BY key),
                         firsts AS (SELECT k.* FROM keyed k JOIN buckets b USING (key) WHERE k.image <= b.images[-1])
                    SELECT least(a.image, b.image), greatest(a.image, b.image), min({PDQ_DISTANCE}) AS distance
                    FROM keyed a JOIN firsts b ON a.key = b.key AND a.image <> b.image
                    WHERE a.is_new = {is_new} AND {others.replace("is_new", "b.is_new")}
                      AND {PDQ_DISTANCE} <= {MAX_PDQ_DISTANCE}
                    GROUP BY 1, 2"""  # noqa: S608 - names and numbers of ours
            )

    # -- contents --------------------------------------------------------------------------------------------------

    def load_image_pairs(self) -> None:
        """Take all image pairs that are stored, once those of `iter_image_pairs` are."""
        columns = ["image_id", "other_image_id", "correlation", "block_difference", "lost_edges"]
        with stream_table(self.con, "scored", self.lake.get_table("curation/image_pairs"), columns):
            self.con.execute(
                """CREATE TABLE links AS SELECT image_id::UUID AS image_id, other_image_id::UUID AS other_image_id,
                          correlation, block_difference, lost_edges FROM scored"""
            )
        self.con.execute(
            "INSERT INTO links SELECT other_image_id, image_id, * EXCLUDE (image_id, other_image_id) FROM links"
        )

    def load_old_sketches(self) -> None:
        """Take the stored sketches of contents that may meet a new one: with its image or a copy, or without images."""
        self.con.execute(
            """CREATE TABLE meeting AS
               WITH new_images AS (SELECT DISTINCT first_image AS image_id FROM content_rows WHERE is_new),
                    shown AS (FROM new_images UNION
                              SELECT l.other_image_id FROM links l JOIN new_images n ON n.image_id = l.image_id)
               SELECT fingerprint FROM content_rows
               WHERE NOT is_new AND (first_image IN (FROM shown WHERE image_id IS NOT NULL)
                     OR (n_images = 0 AND EXISTS (FROM content_rows WHERE is_new AND n_images = 0)))"""
        )
        if not self.con.execute("SELECT 1 FROM meeting LIMIT 1").fetchall():
            return
        with stream_table(
            self.con, "compared_before", self.lake.get_table("curation/compared"), ["fingerprint", "sketch"]
        ):
            self.con.execute(
                f"""INSERT INTO sketches SELECT DISTINCT ON (fingerprint) fingerprint, sketch
                    FROM (SELECT fingerprint::UUID AS fingerprint, sketch::BIGINT[{N_BANDS}] AS sketch
                          FROM compared_before)
                    WHERE fingerprint IN (FROM meeting)"""  # noqa: S608 - a number of ours
            )

    def iter_sample_pairs(self) -> Iterator[pa.Table]:
        """Yield pairs of contents that may say the same, one of them new.

        Columns: `fingerprint`, `version_id`, the same with `other_`, `n_images`, and the scores of the first images
        (null for the same image, or none).
        """
        con = self.con
        con.execute(
            """CREATE TABLE content_candidates
               (content INTEGER, other INTEGER, correlation DOUBLE, block_difference DOUBLE, lost_edges DOUBLE)"""
        )
        self._join_texts_of_images()
        self._join_texts_without_images()
        self._load_stored("curation/sample_pairs", "fingerprint")
        reader = con.sql(
            """SELECT a.fingerprint, a.version_id, b.fingerprint AS other_fingerprint,
                      b.version_id AS other_version_id, a.n_images, c.correlation, c.block_difference, c.lost_edges
               FROM (SELECT content, other, max(correlation) AS correlation,
                            arg_max(block_difference, correlation) AS block_difference,
                            arg_max(lost_edges, correlation) AS lost_edges
                     FROM content_candidates GROUP BY content, other) c
               JOIN content_rows a USING (content) JOIN content_rows b ON b.content = c.other
               WHERE (a.fingerprint, b.fingerprint) NOT IN (SELECT (id, other_id) FROM stored)
               ORDER BY c.other, c.content"""
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)

    def _join_texts_of_images(self) -> None:
        """Add the pairs of contents that show first the same image, or a copy, and share words."""
        n_shared = " + ".join(f"(a.sketch[{n}] = b.sketch[{n}])::INTEGER" for n in range(1, N_BANDS + 1))
        self.con.execute(
            """CREATE TABLE sketched AS SELECT c.content, c.is_new, c.n_images, c.first_image, s.sketch
               FROM content_rows c JOIN sketches s USING (fingerprint) WHERE c.n_images > 0"""
        )
        self.con.execute(
            f"""CREATE TABLE firsts AS SELECT f.* FROM sketched f
                JOIN (SELECT first_image, min(content, {MAX_IMAGE_TEXTS}) AS contents FROM sketched
                      GROUP BY first_image HAVING count(*) > 1
                      UNION ALL SELECT first_image, min(content, {MAX_IMAGE_TEXTS}) FROM sketched
                      GROUP BY first_image HAVING count(*) = 1
                           AND first_image IN (SELECT other_image_id FROM links)) g USING (first_image)
                WHERE f.content <= g.contents[-1]"""  # noqa: S608 - a number of ours
        )
        for source, scores in (
            ("firsts b ON b.first_image = a.first_image", "NULL, NULL, NULL"),
            (
                "links l ON l.image_id = a.first_image JOIN firsts b ON b.first_image = l.other_image_id",
                "l.correlation, l.block_difference, l.lost_edges",
            ),
        ):
            self.con.execute(
                f"""INSERT INTO content_candidates
                    SELECT DISTINCT least(a.content, b.content), greatest(a.content, b.content), {scores}
                    FROM sketched a JOIN {source}
                    WHERE a.content <> b.content AND a.n_images = b.n_images AND (a.is_new OR b.is_new)
                      AND {n_shared} >= {MIN_SHARED_NUMBERS}"""  # noqa: S608 - names and numbers of ours
            )

    def _join_texts_without_images(self) -> None:
        """Add the pairs of contents without images that share a band of their sketches, the closest of each."""
        self.con.execute(
            """CREATE TABLE texts AS SELECT c.content, c.is_new, s.sketch
               FROM content_rows c JOIN sketches s USING (fingerprint) WHERE c.n_images = 0"""
        )
        self.con.execute("CREATE TABLE text_candidates (content INTEGER, other INTEGER)")
        if not self.con.execute("SELECT 1 FROM texts WHERE is_new LIMIT 1").fetchall():
            return
        for nth in range(1, N_BANDS + 1):
            self.con.execute(
                f"""INSERT INTO text_candidates
                    WITH firsts AS (SELECT sketch[{nth}] AS key, unnest(min(content, {MAX_BUCKET_TEXTS})) AS content
                                    FROM texts WHERE key IN (SELECT sketch[{nth}] FROM texts WHERE is_new)
                                    GROUP BY key HAVING count(*) > 1)
                    SELECT f.content, a.content FROM texts a JOIN firsts f ON f.key = a.sketch[{nth}]
                    WHERE f.content < a.content AND a.is_new"""  # noqa: S608 - numbers of ours
            )
        self.con.execute(
            f"""INSERT INTO content_candidates
                SELECT content, other, NULL, NULL, NULL
                FROM (SELECT content, other, count(*) AS n_bands FROM text_candidates GROUP BY ALL)
                QUALIFY row_number() OVER (PARTITION BY other ORDER BY n_bands DESC, content) <= {MAX_NEIGHBOURS}"""  # noqa: S608
        )
