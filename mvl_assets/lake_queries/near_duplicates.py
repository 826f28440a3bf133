"""Contents and images that are worth comparing: found by bands of hashes, each new one with all others.

Two hashes that are close have a band in common, which a join finds. What shares its band with very many others is
compared with the first of them only, so the cost grows with the rows, not with their square. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake import sql
from mvl_assets.lake.durability.spill import stream_batches, stream_table
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake_queries.band_filter import BandFilter, NearHashFilter, split_hashes
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
from mvl_assets.lake_queries.sample_comparison import SampleComparison

BATCH_ROWS, SCAN_ROWS = 2048, 65_536

MAX_BUCKET_TEXTS, MAX_IMAGE_TEXTS = 8, 64
"""What shares a band with more texts, or an image with more texts, is compared with the first alone."""

MIN_SHARED_NUMBERS = 4
"""Numbers of 16 that the sketches of rows with the same images share at least: rows with half of their words in common
share fewer with a chance of 1 %."""

MAX_TEXTS_AT_ONCE = 100_000
"""Texts of which all bands are joined at once; of more it is one after the other, in a sixteenth of the memory."""

MIN_ROWS_PER_LOOKUP = 32
"""Rows that can be read in order in the time in which one is looked up."""

_SAMPLE_COLUMNS = ("version_id", "conversations", "image_properties")
_IMAGE_COLUMNS = ("fingerprint", "first_image", "pdq", "trimmed_pdq")
_SKETCH_COLUMNS = ("fingerprint", "first_image", "sketch")

# Of the rows of a content, which differ in nothing that is compared.
_CONTENT_COLUMNS = """r.fingerprint, min(r.sample_id) AS sample_id, arg_min(r.version_id, r.sample_id) AS version_id,
  arg_min(r.rank, r.sample_id) AS rank, any_value(r.n_images) AS n_images, any_value(r.first_image) AS first_image"""

_NEW_CONTENTS = pa.schema(
    [("fingerprint", pa.string()), ("n_images", pa.int32())]
    + [(name, SAMPLES.columns.field(name).type) for name in ("conversations", "image_properties")]
)


class NearSearch:
    """Search for candidates among the contents of a comparison, each new one with all others.

    Only new contents are a table here: `new_contents`. Of the others, which may be a hundred times as many,
    `curation/compared` has what the search needs, and only those that share a band with a new one are taken from it.
    """

    def __init__(self, comparison: SampleComparison) -> None:
        self.con = comparison.con
        self.lake = comparison.lake
        self._comparison = comparison
        self._compared = self.lake.get_table("curation/compared")
        columns = ["fingerprint"]
        query = "SELECT fingerprint FROM rows"
        with comparison.stream_related("compared_before", "curation/compared", columns, columns, query):
            self.con.execute(
                f"""CREATE TABLE new_contents AS SELECT {_CONTENT_COLUMNS}
                    FROM rows r ANTI JOIN (SELECT fingerprint::UUID AS fingerprint FROM compared_before) c
                      USING (fingerprint)
                    GROUP BY r.fingerprint"""  # noqa: S608 - columns of ours
            )
        self.con.execute(
            f"CREATE TABLE sketches (fingerprint UUID, sketch BIGINT[{N_BANDS}], pdq VARCHAR, trimmed_pdq VARCHAR)"
        )
        ((self.n_new,),) = self.con.execute("SELECT count(*) FROM new_contents").fetchall()
        self._sketch_bands = BandFilter(self.n_new, N_BANDS)

    def iter_new_contents(self) -> Iterator[pa.Table]:
        """Yield the contents that were never compared: what they say, and the hashes of their first images.

        Columns: `fingerprint`, `conversations`, `n_images`, and `pdq` and `trimmed_pdq`, null for a nearly blank image.
        """
        if not self.n_new:
            return
        if not self._comparison.is_whole:
            yield from self._iter_added_contents()
            return
        sources, n_rows = zip(
            *self.con.execute(
                """SELECT s.source, count(*) FROM rows r JOIN sources s USING (rank)
                   WHERE r.rank IN (SELECT rank FROM new_contents) GROUP BY s.source ORDER BY s.source"""
            ).fetchall(),
            strict=True,
        )
        if self.n_new * MIN_ROWS_PER_LOOKUP < sum(n_rows):
            yield from self._read_new_contents()
            return
        condition = sql.is_in("source", sources)
        with stream_table(self.con, "samples", self._comparison.samples, _SAMPLE_COLUMNS, condition):
            yield from self._join_new_contents("samples")

    def _join_new_contents(self, view: str) -> Iterator[pa.Table]:
        reader = self.con.sql(
            f"""SELECT n.fingerprint, s.conversations, n.n_images, s.image_properties
                FROM {view} s JOIN new_contents n ON n.version_id = s.version_id::UUID"""  # noqa: S608 - names of ours
        ).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            yield _take_first_hashes(format_ids(batch).combine_chunks())

    def _iter_added_contents(self) -> Iterator[pa.Table]:
        """Yield the new contents where samples are known that have changed: these are in fragments that were added."""
        fragments = self._comparison.added_fragments
        if self.n_new * MIN_ROWS_PER_LOOKUP < sum(fragment.physical_rows for fragment in fragments):
            yield from self._read_new_contents()
            return
        samples = self._comparison.samples
        batches = samples.open().scanner(list(_SAMPLE_COLUMNS), fragments=fragments, batch_size=BATCH_ROWS)
        schema = pa.schema([samples.schema.field(name) for name in _SAMPLE_COLUMNS])
        with stream_batches(self.con, "added_samples", batches.to_batches(), schema):
            yield from self._join_new_contents("added_samples")

    def _read_new_contents(self) -> Iterator[pa.Table]:
        reader = self.con.sql(
            "SELECT version_id, fingerprint, n_images FROM new_contents ORDER BY version_id"
        ).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            contents = {row["version_id"]: row for row in format_ids(batch).to_pylist()}
            samples = self.read_samples(list(contents), _SAMPLE_COLUMNS)
            rows = [contents[version_id] | sample for version_id, sample in samples.items()]
            yield _take_first_hashes(pa.Table.from_pylist(rows, _NEW_CONTENTS))

    def read_samples(self, version_ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return rows of `samples` by version, for versions of `new_contents` and `content_rows`."""
        return self._comparison.read_samples(version_ids, columns)

    def add_sketches(self, contents: pa.Table, sketches: np.ndarray) -> None:
        """Take the sketches of contents that `iter_new_contents` has yielded, while it still reads, in any order.

        Args:
            contents: Fingerprints and hashes.
            sketches: int64 (contents, bands).
        """
        self._sketch_bands.add(sketches)
        cursor = self.con.cursor()
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(sketches.reshape(-1)), N_BANDS)
        cursor.register("added", contents.append_column("sketch", numbers))
        cursor.execute("INSERT INTO sketches BY NAME SELECT * REPLACE (fingerprint::UUID AS fingerprint) FROM added")
        cursor.close()

    def iter_compared(self) -> Iterator[pa.Table]:
        """Yield the rows of `curation/compared` for contents that were new, but for their run."""
        reader = self.con.sql(
            """SELECT n.fingerprint, n.sample_id, s.source, k.sketch::BIGINT[] AS sketch, n.first_image, k.pdq,
                      k.trimmed_pdq
               FROM new_contents n JOIN sketches k USING (fingerprint) JOIN sources s USING (rank)"""
        ).to_arrow_reader(BATCH_ROWS)
        yield from map(format_ids, reader)

    # -- images ----------------------------------------------------------------------------------------------------

    def iter_image_pairs(self) -> Iterator[pa.Table]:
        """Yield `image_id`, `other_image_id` and `pdq_distance` of first images that may be copies, one of them new.

        An image is new if only contents show it first that were never compared.
        """
        con = self.con
        self._load_similar_images()
        con.execute(
            """CREATE TABLE images AS
               SELECT n.first_image AS image_id, true AS is_new, any_value(k.pdq) AS pdq,
                      any_value(k.trimmed_pdq) AS trimmed_pdq
               FROM new_contents n JOIN sketches k USING (fingerprint)
               WHERE k.pdq IS NOT NULL AND n.first_image NOT IN (
                 SELECT r.first_image FROM rows r SEMI JOIN new_contents c ON c.first_image = r.first_image
                 WHERE r.fingerprint NOT IN (SELECT fingerprint FROM new_contents))
               GROUP BY n.first_image"""
        )
        con.execute(
            """INSERT INTO images SELECT DISTINCT s.image_id, false, s.pdq, s.trimmed_pdq
               FROM rows r JOIN similar_images s ON s.image_id = r.first_image
               WHERE r.fingerprint NOT IN (SELECT fingerprint FROM new_contents)"""
        )
        con.execute(
            f"""CREATE TABLE hashed AS SELECT image, image_id, is_new, {HASH_WORDS} FROM (
                  SELECT image, image_id, is_new, unnest([pdq, trimmed_pdq]) AS hash FROM (
                    SELECT *, row_number() OVER (ORDER BY is_new, image_id)::INTEGER AS image FROM images))
                WHERE hash IS NOT NULL"""  # noqa: S608 - names of ours
        )
        con.execute("CREATE TABLE image_candidates (image INTEGER, other INTEGER, distance SMALLINT)")
        ((n_new, n_old),) = con.execute(
            "SELECT count(*) FILTER (is_new), count(*) FILTER (NOT is_new) FROM hashed"
        ).fetchall()
        for nth in range(N_BANDS if n_new and n_new + n_old > 1 else 0):
            self._join_image_band(nth, has_old_images=n_old > 0)
        self._load_stored("curation/image_pairs", "image_id", "SELECT image_id FROM images WHERE is_new")
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

    def _load_stored(self, table_name: str, column: str, new_ids: str) -> None:
        """Create `stored`, the pairs that are stored, of this run if an earlier one was killed in it.

        Args:
            table_name: The table of pairs.
            column: Its column of the first id.
            new_ids: A query of the ids of which each candidate has one.
        """
        columns = [column, f"other_{column}"]
        with self._comparison.stream_related("stored_rows", table_name, columns, columns, new_ids):
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

    def _load_similar_images(self) -> None:
        """Create `similar_images`, which compared contents show first: those of new contents, and near ones."""
        con = self.con
        con.execute("CREATE TABLE similar_images (image_id UUID, pdq VARCHAR, trimmed_pdq VARCHAR)")
        new_images = self._comparison.list_ids("SELECT first_image FROM new_contents WHERE n_images > 0")
        if not len(new_images) or not self._compared.exists():
            return
        hashes = con.sql("SELECT unnest([pdq, trimmed_pdq]) AS hash FROM sketches").to_arrow_table().column(0)
        near = NearHashFilter(split_hashes(hashes), MAX_PDQ_DISTANCE, MAX_BUCKET_IMAGES)
        contents: list[pa.Array] = []

        def iter_similar() -> Iterator[pa.RecordBatch]:
            for batch in self._compared.scan(_IMAGE_COLUMNS, "pdq IS NOT NULL", SCAN_ROWS):
                is_similar = near.find(split_hashes(batch.column("pdq")))
                trimmed = batch.column("trimmed_pdq")
                is_similar[trimmed.is_valid().to_numpy(zero_copy_only=False)] |= near.find(split_hashes(trimmed))
                is_new = pc.is_in(batch.column("first_image"), value_set=new_images)
                similar = batch.filter(pc.or_(pa.array(is_similar), is_new))
                contents.append(similar.column("fingerprint"))
                yield similar

        with self._stream_compared("passed", iter_similar(), _IMAGE_COLUMNS):
            con.execute(
                """INSERT INTO similar_images
                   SELECT first_image::UUID AS image_id, any_value(pdq) AS pdq, any_value(trimmed_pdq) AS trimmed_pdq
                   FROM passed GROUP BY 1"""
            )
        self._comparison.load_contents(pa.chunked_array(contents, pa.string()).combine_chunks())

    def _stream_compared(
        self, view: str, batches: Iterator[pa.RecordBatch], columns: Sequence[str]
    ) -> AbstractContextManager[None]:
        schema = pa.schema([self._compared.schema.field(name) for name in columns])
        # The database's threads wait busily for a stream, whose few rows fit into memory after a change.
        return stream_batches(self.con, view, batches if self._comparison.is_whole else list(batches), schema)

    # -- contents --------------------------------------------------------------------------------------------------

    def load_image_pairs(self) -> None:
        """Take the stored image pairs of the images that new contents show, once those of `iter_image_pairs` are."""
        ids, scores = ["image_id", "other_image_id"], ["correlation", "block_difference", "lost_edges"]
        query = "SELECT first_image FROM new_contents WHERE n_images > 0"
        with self._comparison.stream_related("scored", "curation/image_pairs", [*ids, *scores], ids, query):
            self.con.execute(
                """CREATE TABLE links AS
                   SELECT * FROM (SELECT image_id::UUID AS image_id, other_image_id::UUID AS other_image_id,
                                         correlation, block_difference, lost_edges FROM scored)
                   WHERE image_id IN (SELECT first_image FROM new_contents WHERE n_images > 0)
                      OR other_image_id IN (SELECT first_image FROM new_contents WHERE n_images > 0)"""
            )
        self.con.execute(
            "INSERT INTO links SELECT other_image_id, image_id, * EXCLUDE (image_id, other_image_id) FROM links"
        )

    def load_old_contents(self) -> None:
        """Create `content_rows`: the new contents, and the others that may say the same as one of them.

        These share a number of their sketches with one and have no images, or show first its image or a copy.
        """
        con = self.con
        con.execute(f"CREATE TABLE similar_contents (fingerprint UUID, sketch BIGINT[{N_BANDS}])")
        con.execute(
            """CREATE TABLE visible AS
               SELECT first_image AS image_id FROM new_contents WHERE n_images > 0
               UNION SELECT l.other_image_id FROM links l JOIN new_contents n ON n.first_image = l.image_id"""
        )
        visible = self._comparison.list_ids("SELECT image_id FROM visible")
        has_texts = con.execute("SELECT 1 FROM new_contents WHERE n_images = 0 LIMIT 1").fetchall() != []
        contents: list[pa.Array] = []

        def iter_similar() -> Iterator[pa.RecordBatch]:
            for batch in self._compared.scan(_SKETCH_COLUMNS, None, SCAN_ROWS):
                images = batch.column("first_image")
                may_be_similar = pc.is_in(images, value_set=visible)
                if has_texts:
                    may_be_similar = pc.or_(may_be_similar, images.is_null())
                batch = batch.filter(may_be_similar)
                numbers = batch.column("sketch").flatten().to_numpy().reshape(-1, N_BANDS)
                similar = batch.filter(pa.array(self._sketch_bands.find(numbers)))
                contents.append(similar.column("fingerprint"))
                yield similar

        if self._compared.exists():
            with self._stream_compared("passed", iter_similar(), _SKETCH_COLUMNS):
                con.execute(
                    f"""INSERT INTO similar_contents SELECT DISTINCT ON (fingerprint) fingerprint::UUID AS fingerprint,
                               sketch::BIGINT[{N_BANDS}] FROM passed"""  # noqa: S608 - a number of ours
                )
            self._comparison.load_contents(pa.chunked_array(contents, pa.string()).combine_chunks())
        # Contents that were compared come first, so that what shares a band with many meets these.
        con.execute(
            f"""CREATE TABLE content_rows AS
                SELECT row_number() OVER (ORDER BY is_new, fingerprint)::INTEGER AS content, *
                FROM (SELECT *, true AS is_new FROM new_contents
                      UNION ALL
                      SELECT {_CONTENT_COLUMNS}, false FROM rows r JOIN similar_contents s USING (fingerprint)
                      WHERE (r.n_images = 0 OR r.first_image IN (FROM visible))
                        AND r.fingerprint NOT IN (SELECT fingerprint FROM new_contents)
                      GROUP BY r.fingerprint)"""  # noqa: S608 - columns of ours
        )
        con.execute(
            """INSERT INTO sketches BY NAME SELECT s.fingerprint, s.sketch
               FROM similar_contents s JOIN content_rows c USING (fingerprint) WHERE NOT c.is_new"""
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
        self._load_stored("curation/sample_pairs", "fingerprint", "SELECT fingerprint FROM new_contents")
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
        ((n_texts,),) = self.con.execute("SELECT count(*) FROM texts").fetchall()
        n_at_once = N_BANDS if n_texts <= MAX_TEXTS_AT_ONCE else 1
        for start in range(1, N_BANDS + 1, n_at_once):
            bands = range(start, start + n_at_once)
            self.con.execute(
                f"""INSERT INTO text_candidates
                    WITH keyed AS (SELECT content, is_new, unnest({list(bands)}) AS band,
                                          unnest([{", ".join(f"sketch[{nth}]" for nth in bands)}]) AS key FROM texts),
                         firsts AS (SELECT band, key, unnest(min(content, {MAX_BUCKET_TEXTS})) AS content FROM keyed
                                    WHERE (band, key) IN (SELECT (band, key) FROM keyed WHERE is_new)
                                    GROUP BY band, key HAVING count(*) > 1)
                    SELECT f.content, a.content FROM keyed a JOIN firsts f ON f.key = a.key AND f.band = a.band
                    WHERE f.content < a.content AND a.is_new"""  # noqa: S608 - numbers of ours
            )
        self.con.execute(
            f"""INSERT INTO content_candidates
                SELECT content, other, NULL, NULL, NULL
                FROM (SELECT content, other, count(*) AS n_bands FROM text_candidates GROUP BY ALL)
                QUALIFY row_number() OVER (PARTITION BY other ORDER BY n_bands DESC, content) <= {MAX_NEIGHBOURS}"""  # noqa: S608
        )


def _take_first_hashes(contents: pa.Table) -> pa.Table:
    """Replace the properties of all images by the hashes of the first one."""
    properties = contents.column("image_properties").combine_chunks()
    has_images = pc.greater(pc.fill_null(pc.list_value_length(properties), 0), 0)
    positions = pc.if_else(has_images, pa.array(properties.offsets[:-1]), None)
    first = properties.values.take(positions)
    has_hash = pc.greater_equal(pc.struct_field(first, "pdq_quality"), MIN_PDQ_QUALITY)
    contents = contents.drop_columns(["image_properties"])
    for name in ("pdq", "trimmed_pdq"):
        contents = contents.append_column(name, pc.if_else(has_hash, pc.struct_field(first, name), None))
    return contents
