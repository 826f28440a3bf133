"""What `curation/duplicates` was last derived from, by which the next run knows what has changed since.

Without it, or where anything but the samples is other than it was, all samples are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import pyarrow as pa

from mvl_assets.common.digest import KEY_SCHEME, compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import DUPLICATES_BASIS

SCHEME = 1
"""Version of the rules by which duplicates are chosen: another one looks at all samples once."""


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """Figures of one source.

    Attributes:
        n_rows: Its current samples.
        n_other_question: Those that stay and show the images of another with other words.
    """

    n_rows: int = 0
    n_other_question: int = 0


@dataclass(frozen=True, slots=True)
class DuplicatesBasis:
    """What a run has looked at.

    Attributes:
        settings_digest: Digest of the sources, as the catalog has them, and of the thresholds.
        samples_version: Version of the table `samples`.
        fragments: Signatures of its fragments.
        duplicates_version: Data version of `curation/duplicates`.
        n_compared: Rows of `curation/compared`.
        n_pairs: Rows of `curation/sample_pairs`.
        n_contents: Different contents of the current samples.
        figures: Figures by source.
    """

    settings_digest: str
    samples_version: int
    fragments: frozenset[str]
    duplicates_version: str
    n_compared: int
    n_pairs: int
    n_contents: int
    figures: Mapping[str, SourceFigures]


def compute_settings_digest(sources: Sequence[tuple[object, ...]], thresholds: Sequence[float] | None) -> str:
    """Return the digest of what duplicates depend on besides rows."""
    limits = None if thresholds is None else list(thresholds)
    return compute_digest(KEY_SCHEME, SCHEME, [list(source) for source in sources], limits)


def read_basis(lake: Lake) -> DuplicatesBasis | None:
    """Return what the last run has looked at; None if there was none."""
    for row in lake.get_table(DUPLICATES_BASIS.name).iter_rows(DUPLICATES_BASIS.columns.names):
        figures = {f["source"]: SourceFigures(f["n_rows"], f["n_other_question"]) for f in row["figures"]}
        return DuplicatesBasis(
            row["settings_digest"],
            row["samples_version"],
            frozenset(row["fragments"]),
            row["duplicates_version"],
            row["n_compared"],
            row["n_pairs"],
            row["n_contents"],
            figures,
        )
    return None


def write_basis(lake: Lake, basis: DuplicatesBasis, *, run_id: str) -> None:
    """Store what a run has looked at, once all of it is done."""
    row = {
        "basis_id": compute_digest("curation/duplicates"),
        "settings_digest": basis.settings_digest,
        "samples_version": basis.samples_version,
        "fragments": sorted(basis.fragments),
        "duplicates_version": basis.duplicates_version,
        "n_compared": basis.n_compared,
        "n_pairs": basis.n_pairs,
        "n_contents": basis.n_contents,
        "figures": [
            dict(zip(("source", "n_rows", "n_other_question"), (source, *astuple(figures)), strict=True))
            for source, figures in sorted(basis.figures.items())
        ],
        "run_id": run_id,
    }
    table = lake.get_table(DUPLICATES_BASIS.name)
    table.publish([pa.Table.from_pylist([row], schema=DUPLICATES_BASIS.columns)])


def has_same_tables(lake: Lake, basis: DuplicatesBasis) -> bool:
    """Return whether the tables that curation keeps for itself hold what they held, or what a killed run has added."""
    return (
        lake.get_table("curation/duplicates").compute_data_version() == basis.duplicates_version
        and lake.get_table("curation/compared").count() >= basis.n_compared
        and lake.get_table("curation/sample_pairs").count() >= basis.n_pairs
    )
