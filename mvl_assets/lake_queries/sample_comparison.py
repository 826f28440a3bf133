"""The current samples of a lake in a database, to be compared: all of them, or those that a change touches.

Which contents may be affected by a change is known step by step: the changed ones, those that resemble a new one, and
those that pairs link with either. Each step loads the rows of its contents, all rows of each, and what is decided of
them is what would be decided among all rows. For that, one column of all rows is scanned and few rows are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.common.id_array import format_ids
from mvl_assets.lake.durability.spill import BATCH_ROWS, open_duckdb, stream_batches, stream_table
from mvl_assets.lake.fragments import list_signed_fragments
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table_reader import ROW_ADDRESS
from mvl_assets.lake_queries.current_samples import load_current_revisions, stream_current_samples
from mvl_assets.lake_queries.duplicates_basis import DuplicatesBasis, SourceFigures, has_same_tables
from mvl_assets.lake_queries.sample_changes import VERSION_COLUMNS, SampleChanges, read_sample_changes

if TYPE_CHECKING:
    import duckdb

MAX_CHANGED_SHARE = 1 / 10
"""Share of the rows of `samples` that are versions of changed samples; of more all samples are looked at."""

MAX_GONE_SHARE = 1 / 8
"""Share of the compared contents that may be gone before all samples are looked at, and the tables written anew."""

_SAMPLE_COLUMNS = ("source", "sample_id", "version_id", "fingerprint", "image_ids")
_PARSED = """s.fingerprint::UUID AS fingerprint, s.sample_id::UUID AS sample_id, s.version_id::UUID AS version_id,
  c.rank, len(s.image_ids)::INTEGER AS n_images, s.image_ids[1]::UUID AS first_image"""


@dataclass(frozen=True, slots=True)
class ComparedSource:
    """A source whose samples are compared.

    Attributes:
        source: Its slug.
        category: Its category.
        is_used: Whether a mixture may take its samples; one that is used is kept rather than one that is not.
        rank: Of equal samples from sources that are used alike, that of the lowest rank is kept.
    """

    source: str
    category: str
    is_used: bool
    rank: int


class SampleComparison:
    """Current samples in a database: the tables `sources` and `rows` (one per sample).

    Attributes:
        con: The database.
        lake: The lake.
        samples: The table `samples`, at one version.
        added_fragments: Fragments of it that have come since the last run, where `basis` is known.
        basis: What the last run has looked at, where `rows` holds what a change since touches; None where it holds all.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake: Lake, sources: Sequence[ComparedSource]) -> None:
        self.con = connection
        self.lake = lake
        self.basis: DuplicatesBasis | None = None
        self._snapshot = lake.snapshot()
        self.samples = self._snapshot.get_table("samples")
        self._addresses: dict[str, int] = {}
        self._loaded_contents = pa.array([], pa.string())
        self.added_fragments: Sequence[Any] = ()
        self.con.execute("CREATE TABLE sources (source VARCHAR, category VARCHAR, is_used BOOLEAN, rank INTEGER)")
        self.con.executemany("INSERT INTO sources VALUES (?, ?, ?, ?)", [astuple(source) for source in sources])
        self._create_rows()

    @property
    def is_whole(self) -> bool:
        """Whether `rows` holds all current samples."""
        return self.basis is None

    # -- rows ------------------------------------------------------------------------------------------------------

    def load_all(self) -> None:
        """Fill `rows` with all current samples."""
        self.basis = None
        self._create_rows()
        with stream_current_samples(self.con, self._snapshot, [*_SAMPLE_COLUMNS]):
            self.con.execute(
                f"INSERT INTO rows BY NAME SELECT {_PARSED} FROM current_samples s JOIN sources c USING (source)"  # noqa: S608
            )

    def try_load_changes(self, basis: DuplicatesBasis, settings_digest: str) -> bool:
        """Fill `rows` with the contents of samples that have changed, if it is known which these are, and few.

        Creates `changed_contents`, the contents of these samples then and now, and `rows_before`, what `rows` would
        have held before the change.
        """
        if not self.samples.exists() or basis.settings_digest != settings_digest:
            return False
        if not has_same_tables(self.lake, basis):
            return False
        changes = read_sample_changes(self.samples, basis.fragments, basis.samples_version)
        if changes is None or len(changes.versions) > MAX_CHANGED_SHARE * self.samples.count():
            return False
        self.basis = basis
        self.added_fragments = changes.added_fragments
        load_current_revisions(self.con, self._snapshot)
        self._load_changed(changes)
        self.load_contents(self.list_ids("SELECT fingerprint FROM changed_contents"))
        n_compared = self.lake.get_table("curation/compared").count()
        return n_compared - self.count_contents() <= MAX_GONE_SHARE * n_compared

    def load_contents(self, fingerprints: pa.Array) -> None:
        """Add the rows of contents to `rows`; nothing where it holds all."""
        if not self.is_whole and len(fingerprints):
            missing = fingerprints.filter(pc.invert(pc.is_in(fingerprints, value_set=self._loaded_contents)))
            self._load_matching("fingerprint", missing)
            self._loaded_contents = pa.concat_arrays([self._loaded_contents, missing])

    def load_images(self, query: str) -> None:
        """Add the rows that show first an image that a query yields; nothing where `rows` holds all."""
        if not self.is_whole:
            self._load_matching("image_ids", self.list_ids(query))

    def _create_rows(self) -> None:
        self.con.execute(
            """CREATE OR REPLACE TABLE rows (fingerprint UUID, sample_id UUID, version_id UUID, rank INTEGER,
                                             n_images INTEGER, first_image UUID)"""
        )

    def _load_changed(self, changes: SampleChanges) -> None:
        with self._register("changed_versions", changes.versions):
            self.con.execute(
                f"""CREATE OR REPLACE TABLE changed_before AS
                    SELECT {_PARSED} FROM changed_versions s JOIN sources c USING (source) WHERE was_stored
                    QUALIFY row_number() OVER (PARTITION BY s.sample_id ORDER BY revision DESC) = 1 AND NOT withdrawn"""  # noqa: S608
            )
            self.con.execute(
                """CREATE OR REPLACE TABLE changed_contents AS
                   SELECT DISTINCT fingerprint::UUID AS fingerprint FROM changed_versions
                   WHERE fingerprint IS NOT NULL"""
            )
            self.con.execute(
                """CREATE OR REPLACE TABLE changed_samples AS
                   SELECT DISTINCT sample_id::UUID AS sample_id FROM changed_versions"""
            )
        self.con.execute(
            """CREATE OR REPLACE VIEW rows_before AS
               SELECT * FROM rows WHERE sample_id NOT IN (SELECT sample_id FROM changed_samples)
               UNION ALL BY NAME SELECT * FROM changed_before"""
        )

    def _load_matching(self, column: str, values: pa.Array) -> None:
        matches = self.samples.find_rows(column, values, VERSION_COLUMNS)
        self._addresses.update(
            zip(matches.column("version_id").to_pylist(), matches.column(ROW_ADDRESS).to_pylist(), strict=True)
        )
        with self._register("matches", matches):
            self.con.execute(
                f"""INSERT INTO rows BY NAME
                    SELECT {_PARSED} FROM matches s JOIN sources c USING (source)
                    LEFT JOIN current_revisions v ON v.sample_id = s.sample_id::UUID
                    WHERE NOT s.withdrawn AND s.revision = coalesce(v.revision, 1)
                      AND s.version_id::UUID NOT IN (SELECT version_id FROM rows)"""  # noqa: S608 - columns of ours
            )

    # -- reading ---------------------------------------------------------------------------------------------------

    def list_ids(self, query: str) -> pa.Array:
        """Return the ids that a query yields in one column, each once and without null."""
        batches = map(format_ids, self.con.sql(query).to_arrow_reader(BATCH_ROWS))
        ids = pa.chunked_array([chunk for batch in batches for chunk in batch.column(0).chunks], pa.string())
        return ids.combine_chunks().drop_null().unique()

    def stream_related(
        self, view: str, table_name: str, columns: Sequence[str], id_columns: Sequence[str], query: str, **scan: Any
    ) -> AbstractContextManager[None]:
        """Offer rows of a table as a view that one query can read, once: those with one of the ids of a query.

        Where `rows` holds all, so does the view: the ids would be all there are.

        Args:
            view: Name of the view.
            table_name: The table.
            columns: Columns to read.
            id_columns: Those of them that may have one of the ids.
            query: Yields the ids.
            scan: `filter` and `partition_key` of `TableReader.scan`.
        """
        table = self.lake.get_table(table_name)
        if self.is_whole:
            return stream_table(self.con, view, table, columns, **scan)
        ids = self.list_ids(query)
        batches = table.scan(columns, batch_size=BATCH_ROWS, **scan) if len(ids) else iter(())
        schema = pa.schema([table.schema.field(name) for name in columns])
        # Few rows, which the database takes at once: its threads wait busily for a stream.
        return stream_batches(self.con, view, list(_iter_related(batches, id_columns, ids)), schema)

    def read_samples(self, version_ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return rows of `samples` by version, for versions in `rows`."""
        if self.is_whole:
            return self._snapshot.get_index("samples").read_rows(version_ids, columns)
        addresses = [self._addresses[version_id] for version_id in version_ids]
        return dict(zip(version_ids, self.samples.read_addresses(addresses, columns).to_pylist(), strict=True))

    # -- figures ---------------------------------------------------------------------------------------------------

    def count_contents(self) -> int:
        """Count the different contents of all current samples."""
        if self.basis is None:
            return self._count("SELECT count(DISTINCT fingerprint) FROM rows")
        counted = "SELECT count(DISTINCT fingerprint) FROM {} JOIN changed_contents USING (fingerprint)"
        return self.basis.n_contents + self._count(counted.format("rows")) - self._count(counted.format("rows_before"))

    def count_rows(self) -> Counter[str]:
        """Count all current samples by source."""
        by_source = "SELECT source, count(*) FROM {} JOIN sources USING (rank) GROUP BY source"
        counts = Counter(dict(self.con.execute(by_source.format("rows")).fetchall()))
        if self.basis is not None:
            counts.subtract(dict(self.con.execute(by_source.format("rows_before")).fetchall()))
            counts.update({source: figures.n_rows for source, figures in self.basis.figures.items()})
        return counts

    def build_basis(
        self, settings_digest: str, duplicates_version: str, figures: Mapping[str, SourceFigures]
    ) -> DuplicatesBasis | None:
        """Return what this comparison has looked at, once all of it is stored; None for a lake without samples."""
        if not self.samples.exists():
            return None
        return DuplicatesBasis(
            settings_digest,
            self.samples.version,
            frozenset(list_signed_fragments(self.samples.open())),
            duplicates_version,
            self.lake.get_table("curation/compared").count(),
            self.lake.get_table("curation/sample_pairs").count(),
            self.count_contents(),
            figures,
        )

    def _count(self, query: str) -> int:
        ((count,),) = self.con.execute(query).fetchall()
        return int(count)

    @contextmanager
    def _register(self, name: str, rows: pa.Table) -> Iterator[None]:
        self.con.register(name, rows)
        try:
            yield
        finally:
            self.con.unregister(name)


def _iter_related(
    batches: Iterator[pa.RecordBatch], id_columns: Sequence[str], ids: pa.Array
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.filter(reduce(pc.or_, (pc.is_in(batch.column(name), value_set=ids) for name in id_columns)))


@contextmanager
def open_comparison(
    lake: Lake, sources: Sequence[ComparedSource], settings_digest: str, basis: DuplicatesBasis | None
) -> Iterator[SampleComparison]:
    """Read the current samples of all sources into a database, or those that a change since the last run touches.

    Args:
        lake: The lake.
        sources: The sources to compare.
        settings_digest: Digest of what decides besides the samples; another one than the last run's compares all.
        basis: What the last run has looked at; None compares all.
    """
    with open_duckdb() as con:
        comparison = SampleComparison(con, lake, sources)
        if basis is None or not comparison.try_load_changes(basis, settings_digest):
            comparison.load_all()
        yield comparison
