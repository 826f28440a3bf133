"""Which samples have changed since a version of `samples`, read from the fragments that came or went since.

Ingest appends new versions, withdrawn ones among them, so as a rule no fragment goes. Where one has (it was compacted,
or rows were purged), its rows are read in the older version, as long as that is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa
import pyarrow.compute as pc

from mvl_assets.lake.fragments import list_signed_fragments
from mvl_assets.lake.table_reader import TableReader

VERSION_COLUMNS = ("version_id", "sample_id", "source", "revision", "withdrawn", "fingerprint", "image_ids")


@dataclass(frozen=True, slots=True)
class SampleChanges:
    """The samples that have a version more or less than before.

    Attributes:
        versions: All versions of these samples, before and now: `VERSION_COLUMNS`, `was_stored`, `is_stored`.
        added_fragments: Fragments of the newest version that were not there; new versions are in no other.
    """

    versions: pa.Table
    added_fragments: Sequence[lance.LanceFragment]


def read_sample_changes(samples: TableReader, signatures: Collection[str], version: int) -> SampleChanges | None:
    """Return what has changed; None if an older version would be needed that is no longer kept.

    Args:
        samples: The table `samples`, as a snapshot.
        signatures: Its fragments before (`list_signed_fragments`).
        version: Its version before.
    """
    fragments = list_signed_fragments(samples.open())
    added = [fragment for signature, fragment in fragments.items() if signature not in signatures]
    unchanged = [fragment for signature, fragment in fragments.items() if signature in signatures]
    added_rows, gone_rows = _read_versions(samples.open(), added), _read_versions(samples.open(), [])
    gone = set(signatures) - fragments.keys()
    if gone:
        before = _open_version(samples.open(), version)
        known = {} if before is None else list_signed_fragments(before)
        if before is None or not gone <= known.keys():
            return None
        gone_rows = _read_versions(before, [known[signature] for signature in sorted(gone)])
    changed = _drop_common(added_rows, gone_rows)
    sample_ids = changed.column("sample_id").combine_chunks().unique()
    unchanged_rows = added_rows.slice(0, 0)
    if gone or pc.any(pc.or_(pc.greater(changed.column("revision"), 1), changed.column("withdrawn"))).as_py():
        unchanged_rows = samples.find_rows("sample_id", sample_ids, VERSION_COLUMNS, unchanged)
    versions = [
        _add_flags(rows.select(list(VERSION_COLUMNS)), was_stored=was_stored, is_stored=is_stored)
        for rows, was_stored, is_stored in (
            (unchanged_rows, True, True),
            (gone_rows, True, False),
            (added_rows, False, True),
        )
    ]
    all_versions = pa.concat_tables(versions)
    return SampleChanges(all_versions.filter(pc.is_in(all_versions.column("sample_id"), value_set=sample_ids)), added)


def _open_version(dataset: lance.LanceDataset, version: int) -> lance.LanceDataset | None:
    try:
        return dataset.checkout_version(version)
    except (ValueError, OSError):
        return None


def _read_versions(dataset: lance.LanceDataset, fragments: Sequence[lance.LanceFragment]) -> pa.Table:
    columns = list(VERSION_COLUMNS)
    if not fragments:
        return pa.schema([dataset.schema.field(name) for name in columns]).empty_table()
    return dataset.scanner(columns=columns, fragments=list(fragments)).to_table()


def _drop_common(rows: pa.Table, other_rows: pa.Table) -> pa.Table:
    """Return the rows of both whose version is in one of them only."""
    ids, other_ids = (table.column("version_id").combine_chunks() for table in (rows, other_rows))
    return pa.concat_tables(
        [
            rows.filter(pc.invert(pc.is_in(ids, value_set=other_ids))),
            other_rows.filter(pc.invert(pc.is_in(other_ids, value_set=ids))),
        ]
    )


def _add_flags(rows: pa.Table, **flags: bool) -> pa.Table:
    for name, value in flags.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), len(rows)))
    return rows
